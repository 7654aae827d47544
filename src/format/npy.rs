//! `.npy` directories.
