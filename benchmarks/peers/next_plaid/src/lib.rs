//! What `next_plaid_crate.py` calls: build an index, open it, search it. Errors go to stderr.

use ndarray::{Array2, ArrayView2, Axis};
use next_plaid::{IndexConfig, MmapIndex, SearchParameters};
use std::ffi::{c_char, CStr};

fn path(folder: *const c_char) -> String {
    unsafe { CStr::from_ptr(folder) }.to_string_lossy().into_owned()
}

/// Build an index of `n` documents with these lengths, whose tokens are the rows of a (sum of lengths, `dim`) matrix.
#[no_mangle]
pub extern "C" fn peer_build(
    folder: *const c_char,
    tokens: *const f32,
    lengths: *const i64,
    n: usize,
    dim: usize,
    nbits: usize,
) -> i32 {
    let lengths = unsafe { std::slice::from_raw_parts(lengths, n) };
    let rows = lengths.iter().sum::<i64>() as usize;
    let tokens = unsafe { ArrayView2::from_shape_ptr((rows, dim), tokens) };
    let mut documents: Vec<Array2<f32>> = Vec::with_capacity(n);
    let mut rest = tokens;
    for &length in lengths {
        let (first, others) = rest.split_at(Axis(0), length as usize);
        documents.push(first.to_owned());
        rest = others;
    }
    let config = IndexConfig {
        nbits,
        ..Default::default()
    };
    match MmapIndex::create_with_kmeans(&documents, &path(folder), &config) {
        Ok(_) => 0,
        Err(error) => {
            eprintln!("{error}");
            1
        }
    }
}

/// Open an index; null if that fails. It is never freed.
#[no_mangle]
pub extern "C" fn peer_open(folder: *const c_char) -> *const MmapIndex {
    match MmapIndex::load(&path(folder)) {
        Ok(index) => Box::into_raw(Box::new(index)),
        Err(error) => {
            eprintln!("{error}");
            std::ptr::null()
        }
    }
}

/// Write the ids of at most `k` documents to `ids`, the best first; return how many, or -1. A threshold of 0 is none.
#[no_mangle]
pub extern "C" fn peer_search(
    index: *const MmapIndex,
    query: *const f32,
    rows: usize,
    dim: usize,
    k: usize,
    n_ivf_probe: usize,
    n_full_scores: usize,
    threshold: f32,
    ids: *mut i64,
) -> i32 {
    let query = unsafe { ArrayView2::from_shape_ptr((rows, dim), query) }.to_owned();
    let parameters = SearchParameters {
        top_k: k,
        n_ivf_probe,
        n_full_scores,
        centroid_score_threshold: (threshold > 0.0).then_some(threshold),
        ..Default::default()
    };
    match unsafe { &*index }.search(&query, &parameters, None) {
        Ok(found) => {
            let ids = unsafe { std::slice::from_raw_parts_mut(ids, k) };
            for (place, id) in ids.iter_mut().zip(&found.passage_ids) {
                *place = *id;
            }
            found.passage_ids.len().min(k) as i32
        }
        Err(error) => {
            eprintln!("{error}");
            -1
        }
    }
}
