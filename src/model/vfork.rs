//! Processes that use one address space: what vfork makes.
//!
//! ```text
//!   vfork 0 1; vfork 1 2       joint = {0, 1, 2}       one of them has the pages and the break,
//!   2 stores                                            2: they change hands, then its call goes on
//!   exit 2                     joint = {0, 1}           and again before their holder leaves
//! ```
//!
//! So every call finds the pages where it finds those of any process. The limits of stack and data stay each one's own; those of mapped and of locked
//! memory are the address space's.

use crate::script::ast::Limit;
use crate::script::outcome::Outcome;
use crate::script::world::ProcSlot;
use std::mem::{swap, take};

use super::{Model, Process};

/// Limits that are a process's and not its address space's.
const OWN: [Limit; 2] = [Limit::Stack, Limit::Data];

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
        let Some(mut from) = self.procs.get_mut(&holder).filter(|_| holder != slot).map(take)
        else {
            return slot;
        };
        if let Some(to) = self.procs.get_mut(&slot) {
            swap(to, &mut from);
            for limit in OWN.map(Limit::word) {
                let (ours, theirs) = (from.limits.remove(limit), to.limits.remove(limit));
                to.limits.extend(ours.map(|bytes| (limit, bytes)));
                from.limits.extend(theirs.map(|bytes| (limit, bytes)));
            }
        }
        self.procs.insert(holder, from);
        slot
    }

    /// Ends a process; what others share with it stays theirs.
    pub(super) fn end_process(&mut self, proc: ProcSlot) -> Outcome {
        let of = self.joint.iter().position(|users| users.contains(&proc.0));
        if let Some(of) = of {
            let other = self.joint[of].iter().copied().find(|user| *user != proc.0);
            other.into_iter().for_each(|other| _ = self.seat(ProcSlot(other)));
            self.joint[of].retain(|user| *user != proc.0);
            self.joint.retain(|users| users.len() > 1);
        }
        self.procs.remove(&proc.0).map_or(Outcome::Skip, |_| Outcome::OK)
    }
}
