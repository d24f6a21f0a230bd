//! Nothing is looked for and nothing linked: see README.md.

/// What build scripts call.
pub fn include_cuda() {}
