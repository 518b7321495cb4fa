//! `meminfo`: what is behind addresses, as far as a process may know.
//!
//! Sources: illumos `os/lgrpsys.c` (behaviour); illumos.md 3.9.

use super::SysError;
use super::process::Process;
use page_db::{PAGE_MASK, PAGE_SIZE, VirtAddr, VirtRange, errno};

/// What `meminfo` is asked about each address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemInfo {
    /// The physical address, if the page is mapped.
    #[doc(alias = "MEMINFO_VPHYSICAL")]
    Physical,
    /// The locality group of the page, if it is mapped: there is one, 0.
    #[doc(alias = "MEMINFO_VLGRP")]
    Group,
    /// The size of the page, if it is mapped.
    #[doc(alias = "MEMINFO_VPAGESIZE")]
    PageSize,
    /// How many replicas there are; nothing is replicated, so it is never answered.
    #[doc(alias("MEMINFO_VREPLCNT", "MEMINFO_VREPL"))]
    Replicas,
}

/// The most questions in a call.
#[doc(alias = "MAX_MEMINFO_REQ")]
pub const MOST_QUESTIONS: usize = 31;

/// The answers for one address.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MemAnswer {
    /// Bit 0: the address is part of the address space. Bit `i`: question `i`, counted from 1, is answered.
    pub validity: u32,
    /// One word a question; 0 where it is not answered.
    pub values: Vec<u64>,
}

impl Process {
    /// Answers `questions` about each of `addrs`. Nothing is faulted in for it.
    ///
    /// # Errors
    /// `EINVAL` for no address, or for no question or more than [`MOST_QUESTIONS`].
    pub fn meminfo(
        &self,
        addrs: &[u64],
        questions: &[MemInfo],
    ) -> Result<Vec<MemAnswer>, SysError> {
        const CALL: &str = "meminfo";
        if addrs.is_empty() {
            return Err(SysError::arg(CALL, errno::EINVAL, "no addresses"));
        }
        if questions.is_empty() || questions.len() > MOST_QUESTIONS {
            return Err(SysError::arg(CALL, errno::EINVAL, "no questions, or too many"));
        }
        Ok(addrs.iter().map(|addr| self.answer(*addr, questions)).collect())
    }
    fn answer(&self, addr: u64, questions: &[MemInfo]) -> MemAnswer {
        let mut answer = MemAnswer { validity: 0, values: vec![0; questions.len()] };
        let (space, cx) = (self.space_now(), self.cx());
        let Ok(at) = VirtAddr::new(addr) else { return answer };
        // A guard is no part of it.
        let page = VirtRange::covering(at.get(), 1);
        if !page.is_ok_and(|page| space.check_mapped(cx, page).is_ok()) {
            return answer;
        }
        answer.validity = 1;
        let Some(mapped) = space.hat().probe(cx, at) else { return answer };
        for (bit, (question, value)) in (1..).zip(questions.iter().zip(&mut answer.values)) {
            *value = match question {
                MemInfo::Physical => mapped.pfn.0 * PAGE_SIZE + (addr & PAGE_MASK),
                MemInfo::Group => 0,
                MemInfo::PageSize => PAGE_SIZE,
                MemInfo::Replicas => continue,
            };
            answer.validity |= 1 << bit;
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;

    /// Illumos behaviour of 3.9: mapped, not mapped, not there; and the counts that are refused.
    #[test]
    fn meminfo_answers_what_is_mapped() {
        let m = Machine::builder().frames(256).build().expect("a machine");
        let p = m.spawn("p").expect("a process");
        let at = p.map_anon(2 * PAGE_SIZE).expect("room");
        p.store(at, &[1]).expect("mapped");
        let ask = [MemInfo::Physical, MemInfo::Replicas, MemInfo::PageSize, MemInfo::Group];
        let got = p.meminfo(&[at + 5, at + PAGE_SIZE, 16, 1 << 63], &ask).expect("addresses");
        let pfn = p.space().hat().probe(p.cx(), VirtAddr::new(at).expect("user")).expect("mapped");
        assert_eq!(got[0].validity, 0b11011);
        assert_eq!(got[0].values, [pfn.pfn.0 * PAGE_SIZE + 5, 0, PAGE_SIZE, 0]);
        let validity: Vec<_> = got.iter().map(|a| a.validity).collect();
        assert_eq!(validity[1..], [1, 0, 0]);
        let refused = |addrs: &[u64], n: usize| {
            p.meminfo(addrs, &vec![MemInfo::Group; n]).map_err(|e| e.errno).err()
        };
        assert_eq!(refused(&[], 1), Some(errno::EINVAL));
        assert_eq!(refused(&[at], 0), Some(errno::EINVAL));
        assert_eq!(refused(&[at], 32), Some(errno::EINVAL));
        assert_eq!(refused(&[at], 31), None);
    }

    /// Behaviour 18: what was found before a hole is there together with the error.
    #[test]
    fn b18_mincore_gives_what_it_had_before_a_hole() {
        let m = Machine::builder().frames(256).build().expect("a machine");
        let p = m.spawn("p").expect("a process");
        let at = p.map_anon(200 * PAGE_SIZE).expect("room");
        p.store(at + 129 * PAGE_SIZE, &[1]).expect("mapped");
        p.munmap(at + 130 * PAGE_SIZE, PAGE_SIZE).expect("mapped");
        let mut bytes = vec![7; 3];
        let met = p.mincore_into(at, 200 * PAGE_SIZE, &mut bytes);
        assert_eq!(met.map_err(|e| e.errno), Err(errno::ENOMEM));
        assert_eq!((bytes.len(), bytes[128] & 1, bytes[129] & 1), (130, 0, 1));
    }

    /// Case F20: without the privilege every lock call is refused, also in a child; what is locked stays.
    #[test]
    fn f20_locks_need_the_privilege() {
        use addr_space::LockAll;
        let m = Machine::builder().frames(256).build().expect("a machine");
        let p = m.spawn("p").expect("a process");
        let at = p.map_anon(PAGE_SIZE).expect("room");
        p.mlock(at, PAGE_SIZE).expect("privileged from the start");
        p.set_may_lock(false);
        let child = p.fork().expect("memory");
        for p in [&p, &child] {
            let all = [
                p.mlock(at, PAGE_SIZE),
                p.munlock(at, PAGE_SIZE),
                p.mlockall(LockAll::CURRENT),
                p.munlockall(),
            ];
            assert!(all.iter().all(|a| a.as_ref().is_err_and(|e| e.errno == errno::EPERM)));
        }
        assert_eq!(p.space().state().locked(), PAGE_SIZE);
        p.set_may_lock(true);
        p.munlockall().expect("again");
        m.verify().expect("whole");
    }

    /// Illumos.md 3.9: the one page size is heard, others are refused; and who has an identity, a policy, a capability.
    #[test]
    fn page_sizes_identities_and_capabilities() {
        use addr_space::Capability::NoMinorFaults;
        let m = Machine::builder().frames(256).build().expect("a machine");
        let p = m.spawn("p").expect("a process");
        let at = p.map_anon(PAGE_SIZE).expect("room");
        let (space, cx) = (p.space(), p.cx());
        let va = VirtAddr::new(at).expect("user");
        let page = page_db::VirtRange::page_of(va);
        assert_eq!(space.set_page_size(cx, page, 0), Ok(()));
        let large = space.set_page_size(cx, page, 1).map_err(|e| e.errno());
        assert_eq!(large, Err(errno::EINVAL));
        assert_eq!(space.policy_at(cx, va), Some(None));
        assert_eq!(space.capable_at(cx, va, NoMinorFaults), Some(false));
        let kernel = m.kernel_scx().seg.start();
        assert_eq!(m.kas().capable_at(cx, kernel, NoMinorFaults), Some(true));
        assert_eq!(m.kas().mem_id(cx, kernel).map_err(|e| e.errno()), Err(errno::ENODEV));
    }
}
