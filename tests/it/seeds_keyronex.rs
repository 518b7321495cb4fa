//! The Keyronex document: what each of its sentences says about behaviour, shown.
//!
//! The document's words and ours: `vm_page_t` is a page structure, the resident page table all of them; `vm_anon_t` an anon; `vm_amap_t` an
//! anon map; a vnode object a vnode with its page list; `vm_map_t` an address space and `kmap` the kernel's, `kas`; `vm_map_entry_t` a segment;
//! `pmap` the hat.
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
