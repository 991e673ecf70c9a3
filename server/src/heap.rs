//! How the process's heap is divided.

#![allow(unsafe_code)]

/// glibc would give the threads eight arenas for each core, and what was freed in one helps no thread of another: with a
/// hundred queries at once that doubled the resident memory. One arena a core is as quick, since each thread has a cache
/// of small pieces before it. To be called before there are threads; `MALLOC_ARENA_MAX` has the last word.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn share_arenas() {
    use std::ffi::c_int;

    const M_ARENA_MAX: c_int = -8;
    unsafe extern "C" {
        fn mallopt(parameter: c_int, value: c_int) -> c_int;
    }

    if std::env::var_os("MALLOC_ARENA_MAX").is_some() {
        return;
    }
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let arenas = c_int::try_from(cores.max(2)).unwrap_or(c_int::MAX);
    // SAFETY: a function of glibc with this signature, which takes any values and keeps no pointer. That it could not
    // be obeyed is no error: memory is then divided as it would have been.
    unsafe { mallopt(M_ARENA_MAX, arenas) };
}

/// Other allocators have other ways.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn share_arenas() {}
