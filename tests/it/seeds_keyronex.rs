//! The Keyronex document: what each of its sentences says about behaviour, shown.
//!
//! The document's words and ours: `vm_page_t` is a page structure, the resident page table all of them; `vm_anon_t` an anon; `vm_amap_t` an
//! anon map; a vnode object a vnode with its page list; `vm_map_t` an address space and `kmap` the kernel's, `kas`; `vm_map_entry_t` a segment;
//! `pmap` the hat.
//!
//! | the document says | shown in |
//! |---|---|
//! | portable: what is mapped is kept apart from how it is translated; swap-backed memory; page caching | `pages` |
//! | `vm_page_t`: one for each frame, queues by state, the resident page table, its anon or its object and offset, its `pv_map` list | `pages` |
//! | `vm_anon_t`: a page or an identifier to read it by, a reference count, a lock; used memory must be described by anons | `anons` |
//! | `vm_amap_t`: two levels, sparse, chunks of 32 | `anons` |
//! | `vm_object_t`: anonymous with an amap, or a vnode with its pages | `maps` |
//! | `vm_map_t`: a tree of entries; `kmap` in every process, out of users' reach | `maps` |
//! | `vm_map_entry_t`: object, offset, size, maximum protection, which are not the object's | `maps` |
//! | an anon with more than one reference is mapped read-only and copied on write; PID 1 and PID 2, step by step | `anonymous` |
//! | private mappings of vnodes: loads, stores, and visibility in one direction | `anonymous` |
//!
//! That anons should become pageable is a hope of the document, not a behaviour.
//!
//! Sources: the Keyronex document on its virtual memory manager; uvm.md 4.3 (the worked example as a table), 4.4.

mod anons;
mod anonymous;
mod maps;
mod pages;

use crate::Scene;

fn scene(setup: &str) -> Scene {
    let mut s = Scene::new();
    s.run(setup);
    s
}
