"""Where indexes are kept: the seam (`base`), the folder (`local`) and Astra DB (`astra`)."""
