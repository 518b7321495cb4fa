//! Open files: a vnode and what this descriptor may do with it.

use super::file::File;
use std::sync::Arc;

/// What a descriptor may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub enum OpenMode {
    /// `O_RDWR`.
    #[default]
    ReadWrite,
    /// `O_RDONLY`.
    ReadOnly,
    /// `O_WRONLY`.
    WriteOnly,
}

/// An open file: the vnode, and whether this descriptor reads and writes.
#[doc(alias = "file_t")]
#[derive(Clone, Debug)]
pub struct FileHandle {
    /// The file.
    pub vnode: Arc<File>,
    /// `FREAD`.
    pub readable: bool,
    /// `FWRITE`.
    pub writable: bool,
}

impl FileHandle {
    /// A descriptor of `vnode`. It never allows stores that the file's own store would refuse.
    pub fn new(vnode: Arc<File>, mode: OpenMode) -> Self {
        let writable = vnode.is_writable();
        Self {
            vnode,
            readable: mode != OpenMode::WriteOnly,
            writable: mode != OpenMode::ReadOnly && writable,
        }
    }
}
