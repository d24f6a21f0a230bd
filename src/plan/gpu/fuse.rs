//! Ops that share a launch. A launch takes longer to start than many an op of few rows takes to run.

use super::launcher::{Call, Launcher, Touched};
use crate::error::Result;
use crate::ops::{HeadNorm, Op};
use crate::plan::{Segment, Space};

/// The launches of a segment for its graph, from those of its single ops and what memory each op uses.
pub(super) fn fused(
    segment: &Segment,
    single: &[Vec<Call>],
    touched: &[Touched],
    launcher: &mut Launcher<'_>,
) -> Result<Vec<Call>> {
    let ops: Vec<&Op> = segment.steps.iter().map(|step| &step.op).collect();
    let mut calls = Vec::new();
    let mut at = 0;
    while at < ops.len() {
        let norms = norms_together(&ops[at..], &touched[at..]);
        let taken = match ops[at..] {
            _ if norms.len() > 1 => {
                HeadNorm::launch_together(&norms, launcher)?;
                norms.len()
            }
            [Op::LayerNorm(norm), Op::Linear(linear), ..]
                if linear.takes(norm)
                    && !touched[at].uses(&touched[at + 1].written)
                    && nobody_reads(&touched[at], &touched[at + 2..]) =>
            {
                linear.launch_normed(norm, launcher)?;
                2
            }
            _ => {
                calls.extend(single[at].iter().cloned());
                at += 1;
                continue;
            }
        };
        calls.append(&mut launcher.calls);
        at += taken;
    }
    Ok(calls)
}

/// The head norms that `ops` starts with and that do not use each other's results: queries, keys and values of a place.
fn norms_together<'a>(ops: &[&'a Op], touched: &[Touched]) -> Vec<&'a HeadNorm> {
    let mut norms = Vec::new();
    for (i, op) in ops.iter().take(HeadNorm::TOGETHER).enumerate() {
        let Op::HeadNorm(norm) = op else { break };
        let apart = |earlier: &Touched| !earlier.uses(&touched[i].written) && !touched[i].uses(&earlier.written);
        if !touched[..i].iter().all(apart) {
            break;
        }
        norms.push(norm);
    }
    norms
}

/// Whether what an op leaves is written over, as a whole, before any op of `later`, which follow its one reader, reads it.
/// What the segment leaves may be read after it.
fn nobody_reads(op: &Touched, later: &[Touched]) -> bool {
    let next = later.iter().find(|next| next.uses(&op.written));
    op.written.0 == Space::Scratch && next.is_some_and(|next| next.writes_over(&op.written))
}
