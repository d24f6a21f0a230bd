//! Functions of the driver that this crate calls and cust does not.

use super::functions;
use cust::sys::{CUfunction, CUgraph, CUgraphExec, CUstream};
use std::ffi::{c_int, c_uint};

functions! {
    cuFuncGetParamInfo(function: CUfunction, index: usize, offset: *mut usize, size: *mut usize);
    cuFuncSetAttribute(function: CUfunction, attribute: c_int, value: c_int);
    cuGraphExecDestroy(exec: CUgraphExec);
    cuGraphInstantiateWithFlags(exec: *mut CUgraphExec, graph: CUgraph, flags: u64);
    cuGraphLaunch(exec: CUgraphExec, stream: CUstream);
    cuStreamBeginCapture_v2(stream: CUstream, mode: c_uint);
    cuStreamEndCapture(stream: CUstream, graph: *mut CUgraph);
    cuStreamQuery(stream: CUstream);
}
