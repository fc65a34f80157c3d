"""Images and PDF pages: reading, checking, fetching and keeping them."""
