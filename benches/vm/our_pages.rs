//! A page database full of named pages, for the hash rows.

use std::sync::Arc;

use page_db::cx::SpinHooks;
use page_db::page::{PageArray, PageId};
use page_db::{
    Counters, CpuId, Cx, FileOffset, Identity, LockedPage, ManualClock, PageDb, PageDbConfig,
    PageHash, Reserve, ThreadId, VnodeId, VnodeKind,
};

use crate::our_memory::NoData;

/// Pages with names, unlocked, in use.
pub(crate) struct Pages {
    db: PageDb,
    /// Our numbers of the vnodes, by the caller's.
    vnodes: Vec<VnodeId>,
    /// Pages in use that have no name.
    spare: Vec<PageId>,
}

/// One thread's way to them.
pub(crate) struct PageHand<'a> {
    cx: Cx,
    pages: &'a PageArray,
    hash: &'a dyn PageHash,
    owner: &'a Pages,
}

impl Pages {
    /// Gives frames to `names` (vnode, byte offset) in ascending order of frame number.
    pub(crate) fn new(names: &[(u64, u64)]) -> Result<Self, String> {
        Self::with_spare(names, 0)
    }

    /// The same, with `spare` pages that have no name yet and vnodes enough for theirs.
    pub(crate) fn with_spare(names: &[(u64, u64)], spare: usize) -> Result<Self, String> {
        const CPUS: u16 = 2;
        let counters = Counters::new(CPUS);
        let cx = Cx::new(&counters, CpuId(0), ThreadId(0), Arc::new(SpinHooks));
        let beside = (names.len() / 8).max(spare + 4096);
        let memory = Arc::new(NoData::new(names.len() + beside)?);
        let config = PageDbConfig { cpus: CPUS, ..PageDbConfig::default() };
        let db = PageDb::new(&cx, memory, Arc::new(ManualClock::default()), counters, &config)
            .map_err(|e| e.to_string())?;
        let most = names.iter().map(|name| name.0).max().unwrap_or(0) + spare as u64 / 1024 + 1;
        let vnodes = (0..=most)
            .map(|_| db.vnodes().register(&cx, VnodeKind::File).map_err(|e| e.to_string()))
            .collect::<Result<Vec<_>, _>>()?;
        let mut this = Self { db, vnodes, spare: Vec::with_capacity(spare) };
        this.fill(&cx, names)?;
        for i in 0..spare {
            let page = this.db.alloc(&cx, i as u64, Reserve::Push).map_err(|e| e.to_string())?;
            this.spare.push(page.id());
        }
        Ok(this)
    }

    fn fill(&mut self, cx: &Cx, names: &[(u64, u64)]) -> Result<(), String> {
        let mut frames = (0..names.len())
            .map(|i| self.db.alloc(cx, i as u64, Reserve::Push).map_err(|e| e.to_string()))
            .collect::<Result<Vec<_>, _>>()?;
        frames.sort_by_key(|page| page.id());
        for (page, &name) in frames.iter().zip(names) {
            self.db.hash_in(cx, page, self.identity(name)).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// Frames of the machine, which the table is made for.
    pub(crate) fn frames(&self) -> u64 {
        self.db.pages().len()
    }

    #[inline]
    fn identity(&self, (vnode, offset): (u64, u64)) -> Identity {
        Identity::new(
            self.vnodes[vnode as usize],
            FileOffset::of_page(offset >> 12).unwrap_or_default(),
        )
    }

    /// The way of a thread on `cpu`.
    pub(crate) fn on(&self, cpu: usize) -> PageHand<'_> {
        let cx = Cx::new(
            self.db.counters(),
            CpuId(cpu as u16),
            ThreadId(cpu as u32 + 1),
            Arc::new(SpinHooks),
        );
        PageHand { cx, pages: self.db.pages(), hash: self.db.hash(), owner: self }
    }
}

impl PageHand<'_> {
    /// What the hash answers, unlocked and unverified: the row's bare hit.
    #[inline]
    pub(crate) fn find(&self, name: (u64, u64)) -> u32 {
        self.hash
            .search_hint(&self.cx, self.pages, self.owner.identity(name))
            .map_or(u32::MAX, |page| page.link())
    }

    /// `page_exists`: the answer, compared with the identity on the page.
    #[inline]
    pub(crate) fn exists(&self, name: (u64, u64)) -> u32 {
        self.owner
            .db
            .exists(&self.cx, self.owner.identity(name))
            .map_or(u32::MAX, |page| page.link())
    }

    /// The whole `page_lookup`: hit, shared lock, identity compared under it, unlock.
    #[inline]
    pub(crate) fn lookup(&self, name: (u64, u64)) -> u32 {
        let page = self.owner.db.lookup_shared(&self.cx, self.owner.identity(name));
        page.map_or(u32::MAX, |page| page.id().link())
    }

    /// Files spare page `spare` under a name nobody has.
    #[inline]
    pub(crate) fn insert(&self, spare: usize, name: (u64, u64)) {
        let (id, page) = (self.owner.identity(name), self.owner.spare[spare]);
        self.hash.insert_unless_present(&self.cx, self.pages, id, page).expect("nobody has it");
    }

    /// Takes the name from spare page `spare` again.
    #[inline]
    pub(crate) fn remove(&self, spare: usize, name: (u64, u64)) {
        let (id, page) = (self.owner.identity(name), self.owner.spare[spare]);
        self.hash.remove(&self.cx, self.pages, id, page);
    }
}
