//! Processes that use one address space: what vfork makes.
//!
//! ```text
//!   vfork 0 1; vfork 1 2       joint = {0, 1, 2}       one of them has the pages and the break,
//!   2 stores                                            2: they change hands, then its call goes on
//!   exit 2                     joint = {0, 1}           and again before their holder leaves
//! ```
//!
//! So every call finds the pages where it finds those of any process. Limits stay each one's own; of those of mapped and of locked memory the address space
//! has what was set last by anybody who uses it.

use crate::script::ast::Limit;
use crate::script::outcome::Outcome;
use crate::script::world::ProcSlot;
use std::collections::BTreeMap;
use std::mem::{swap, take};

use super::{Model, Process};

/// Limits that the address space asks for.
const TOLD: [Limit; 2] = [Limit::Vmem, Limit::Memlock];

impl Model {
    /// Makes a process that uses another's pages and break.
    pub(super) fn share_process(&mut self, parent: u32, child: u32) -> Outcome {
        let Some(p) = self.procs.get(&parent).filter(|_| !self.procs.contains_key(&child)) else {
            return Outcome::Skip;
        };
        let own = Process { limits: p.limits.clone(), ..Process::default() };
        self.procs.insert(child, own);
        match self.joint.iter_mut().find(|users| users.contains(&parent)) {
            Some(users) => users.push(child),
            None => self.joint.push(vec![parent, child]),
        }
        Outcome::OK
    }

    /// Gives a process the pages that it shares with others, wherever they are.
    pub(super) fn seat(&mut self, ProcSlot(slot): ProcSlot) -> u32 {
        let Some(users) = self.joint.iter_mut().find(|users| users.contains(&slot)) else {
            return slot;
        };
        // The holder comes first.
        let at = users.iter().position(|user| *user == slot).unwrap_or(0);
        let holder = users[0];
        users.swap(0, at);
        let users = users.clone();
        let Some(mut from) = self.procs.get_mut(&holder).filter(|_| holder != slot).map(take)
        else {
            self.tell(slot, &users);
            return slot;
        };
        if let Some(to) = self.procs.get_mut(&slot) {
            swap(to, &mut from);
            swap(&mut to.limits, &mut from.limits);
        }
        self.procs.insert(holder, from);
        self.tell(slot, &users);
        slot
    }

    /// What holds for a process that uses an address space with others.
    fn tell(&mut self, slot: u32, users: &[u32]) {
        let of = |word| {
            let set = users.iter().filter_map(|user| self.procs.get(user)?.limits.get(word));
            set.copied().max_by_key(|(_, set)| *set).map(|last| (word, last))
        };
        let told = TOLD.map(Limit::word).into_iter().filter_map(of).collect();
        self.procs.entry(slot).and_modify(|p| p.told = told);
    }

    /// Ends a process; what others share with it stays theirs.
    pub(super) fn end_process(&mut self, proc: ProcSlot) -> Outcome {
        let of = self.joint.iter().position(|users| users.contains(&proc.0));
        if let Some(of) = of {
            let other = self.joint[of].iter().copied().find(|user| *user != proc.0);
            other.into_iter().for_each(|other| _ = self.seat(ProcSlot(other)));
            self.joint[of].retain(|user| *user != proc.0);
            if let [alone] = self.joint[of][..] {
                self.procs.entry(alone).and_modify(|p| p.told = BTreeMap::new());
            }
            self.joint.retain(|users| users.len() > 1);
        }
        self.procs.remove(&proc.0).map_or(Outcome::Skip, |_| Outcome::OK)
    }
}
