//! A C tree as a further column of the index rows, when one is at hand.
//!
//! No such tree is part of this repository. `SEGVM_AVL_C` may name a shared library that exports, with the usual
//! kernel signatures,
//!
//! ```text
//! void  avl_create(avl_tree_t *, int (*compare)(const void *, const void *), size_t size, size_t offset);
//! void *avl_find(avl_tree_t *, const void *key, avl_index_t *where);
//! void  avl_insert(avl_tree_t *, void *node, avl_index_t where);
//! void  avl_remove(avl_tree_t *, void *node);
//! void *avl_nearest(avl_tree_t *, avl_index_t where, int direction);    direction 1: the next larger
//! ```
//!
//! where an `avl_tree_t` takes at most 64 bytes, the links at `offset` in a node at most 24, and an `avl_index_t` is
//! a machine word. A node is 96 bytes: the segment's first address, the address behind it, then the links.

use std::cell::UnsafeCell;
use std::cmp::Ordering;
use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr;

/// A node as the library sees it.
#[repr(C)]
pub(crate) struct Node {
    start: u64,
    end: u64,
    links: [usize; 3],
    value: u32,
    rest: [u8; 52],
}

const _: () = assert!(size_of::<Node>() == 96);

type Create = unsafe extern "C" fn(
    *mut c_void,
    extern "C" fn(*const c_void, *const c_void) -> c_int,
    usize,
    usize,
);
type Find = unsafe extern "C" fn(*mut c_void, *const c_void, *mut usize) -> *mut c_void;
type Insert = unsafe extern "C" fn(*mut c_void, *mut c_void, usize);
type Remove = unsafe extern "C" fn(*mut c_void, *mut c_void);
type Nearest = unsafe extern "C" fn(*mut c_void, usize, c_int) -> *mut c_void;

/// A loaded library with one tree.
pub(crate) struct CAvl {
    tree: Box<[u64; 8]>,
    nodes: Box<[UnsafeCell<Node>]>,
    find: Find,
    insert: Insert,
    remove: Remove,
    nearest: Nearest,
}

/// Equal when one range holds the other's first address, as a segment comparison answers.
extern "C" fn compare(key: *const c_void, node: *const c_void) -> c_int {
    // SAFETY: the library passes back pointers this module gave it; both name live `Node`s nobody writes meanwhile.
    let (key, node) = unsafe { (&*key.cast::<Node>(), &*node.cast::<Node>()) };
    match (key.start < node.start, key.start < node.end) {
        (true, _) => Ordering::Less as c_int,
        (false, true) => 0,
        (false, false) => Ordering::Greater as c_int,
    }
}

impl CAvl {
    /// Loads the library `SEGVM_AVL_C` names and gives it nodes for `segments`, none inserted; `None` when unset.
    pub(crate) fn load(segments: &[(u64, u64)]) -> Option<Result<Self, String>> {
        let path = std::env::var("SEGVM_AVL_C").ok()?;
        Some(Self::open(&path, segments))
    }

    fn open(path: &str, segments: &[(u64, u64)]) -> Result<Self, String> {
        let name = CString::new(path).map_err(|_| format!("{path:?} holds a zero byte"))?;
        // SAFETY: loads the library the user named; its initialisers are the user's business.
        let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
        if library.is_null() {
            return Err(format!("{path}: cannot be loaded"));
        }
        let symbol = |name: &'static std::ffi::CStr| -> Result<*mut c_void, String> {
            // SAFETY: the library is loaded and stays so; the name ends in a zero byte.
            let at = unsafe { libc::dlsym(library, name.as_ptr().cast::<c_char>()) };
            if at.is_null() {
                Err(format!("{path}: no {}", name.to_string_lossy()))
            } else {
                Ok(at)
            }
        };
        let (create, find, insert) =
            (symbol(c"avl_create")?, symbol(c"avl_find")?, symbol(c"avl_insert")?);
        let (remove, nearest) = (symbol(c"avl_remove")?, symbol(c"avl_nearest")?);
        // SAFETY: the exports have the signatures the module's documentation demands.
        let (create, find, insert) = unsafe {
            (
                std::mem::transmute::<*mut c_void, Create>(create),
                std::mem::transmute::<*mut c_void, Find>(find),
                std::mem::transmute::<*mut c_void, Insert>(insert),
            )
        };
        // SAFETY: as above.
        let (remove, nearest) = unsafe {
            (
                std::mem::transmute::<*mut c_void, Remove>(remove),
                std::mem::transmute::<*mut c_void, Nearest>(nearest),
            )
        };
        let nodes = segments
            .iter()
            .enumerate()
            .map(|(i, &(start, end))| UnsafeCell::new(node(start, end, i as u32)))
            .collect();
        let mut tree = Box::new([0u64; 8]);
        // SAFETY: the tree is 64 bytes that stay where they are; sizes describe `Node`.
        unsafe {
            create(
                tree.as_mut_ptr().cast(),
                compare,
                size_of::<Node>(),
                std::mem::offset_of!(Node, links),
            )
        };
        Ok(Self { tree, nodes, find, insert, remove, nearest })
    }

    fn tree(&self) -> *mut c_void {
        self.tree.as_ptr().cast_mut().cast()
    }

    /// The value of the segment that holds `address`.
    #[inline]
    pub(crate) fn find(&self, address: u64) -> Option<u32> {
        let key = node(address, address + 1, 0);
        // SAFETY: the tree was created and all its nodes are alive; a null `where` means "not wanted".
        let found = unsafe { (self.find)(self.tree(), (&raw const key).cast(), ptr::null_mut()) };
        value(found)
    }

    /// The same, or the value of the next segment.
    pub(crate) fn find_or_next(&self, address: u64) -> Option<u32> {
        let key = node(address, address + 1, 0);
        let mut place = 0;
        // SAFETY: as for `find`; `place` is a live word.
        let found = unsafe { (self.find)(self.tree(), (&raw const key).cast(), &raw mut place) };
        if !found.is_null() {
            return value(found);
        }
        // SAFETY: the find just made filled `place` in, and the tree has not changed.
        value(unsafe { (self.nearest)(self.tree(), place, 1) })
    }

    /// Links node `index` in.
    pub(crate) fn insert(&mut self, index: usize) {
        let at: *mut c_void = self.nodes[index].get().cast();
        let mut place = 0;
        // SAFETY: the node is alive, not in the tree, and never moves.
        unsafe {
            (self.find)(self.tree(), at, &raw mut place);
            (self.insert)(self.tree(), at, place);
        }
    }

    /// Unlinks node `index`.
    pub(crate) fn remove(&mut self, index: usize) {
        let at: *mut c_void = self.nodes[index].get().cast();
        // SAFETY: the node is in the tree.
        unsafe { (self.remove)(self.tree(), at) };
    }
}

fn node(start: u64, end: u64, value: u32) -> Node {
    Node { start, end, links: [0; 3], value, rest: [0; 52] }
}

fn value(found: *mut c_void) -> Option<u32> {
    // SAFETY: the library answers null or a node it was given.
    unsafe { found.cast::<Node>().as_ref() }.map(|node| node.value)
}
