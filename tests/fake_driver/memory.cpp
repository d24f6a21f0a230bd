// Memory of a GPU.

#include "fake.h"

API cuMemGetInfo_v2(size_t* free_bytes, size_t* total) {
    CALL();
    *total = (size_t)state.settings.memory;
    *free_bytes = (size_t)(state.settings.memory - state.used[call.context->device]);
    return SUCCESS;
}

API cuMemAlloc_v2(unsigned long long* address, size_t bytes) {
    CALL();
    if (!may_wait()) return misuse(CAPTURE_UNSUPPORTED, "%s while this thread records a graph", __func__);
    if (bytes == 0) return misuse(INVALID_VALUE, "an allocation of no bytes");
    long long& used = state.used[call.context->device];
    if (++state.allocations == state.settings.fail_allocation || bytes > (size_t)(state.settings.memory - used)) return OUT_OF_MEMORY;
    auto* whole = (unsigned char*)aligned_alloc(BORDER, 2 * BORDER + (bytes + BORDER - 1) / BORDER * BORDER);
    if (!whole) return OUT_OF_MEMORY;
    memset(whole, BORDER_BYTE, BORDER);
    memset(whole + BORDER, 0xff, bytes);
    memset(whole + BORDER + bytes, BORDER_BYTE, BORDER);
    *address = (unsigned long long)(whole + BORDER);
    state.memory[*address] = {call.context, bytes};
    used += (long long)bytes;
    if (used > state.peak_bytes) state.peak_bytes = used;
    return SUCCESS;
}

API cuMemFree_v2(unsigned long long address) {
    CALL();
    auto it = state.memory.find(address);
    if (it == state.memory.end()) return misuse(INVALID_VALUE, "%s of what is not allocated", __func__);
    if (!may_wait()) return misuse(CAPTURE_UNSUPPORTED, "%s while this thread records a graph", __func__);
    drain_all(call.context);
    if (call.context->failed) return call.context->failed;
    release(it);
    return SUCCESS;
}

namespace {

// Copies, or fills if there is no `from`. Sides that are a GPU's must be allocated, now and when it is done.
int copy(Context* context, Stream* handle, unsigned long long to, bool to_gpu, unsigned long long from, bool from_gpu, size_t bytes, int value) {
    Stream* stream = named(context, handle);
    if (!state.streams.count(stream)) return misuse(INVALID_HANDLE, "a copy in a stream that is no more");
    if (stream->context != context) return misuse(INVALID_CONTEXT, "a copy in a stream of another context");
    auto allocated = [=] { return (!to_gpu || within(to, bytes)) && (!from_gpu || within(from, bytes)); };
    if (!allocated()) return misuse(INVALID_VALUE, "a copy of %zu bytes to or from where they are not allocated", bytes);
    return put(stream, [=]() -> int {
        if (!allocated()) return misuse(ILLEGAL_ADDRESS, "a copy of %zu bytes to or from memory that was freed before it was done", bytes);
        ++(from ? state.copies : state.fills);
        if (from) memmove((void*)to, (const void*)from, bytes);
        else memset((void*)to, value, bytes);
        return SUCCESS;
    });
}

} // namespace

API cuMemcpyHtoDAsync_v2(unsigned long long to, const void* from, size_t bytes, Stream* handle) {
    CALL();
    if (!from) return misuse(INVALID_VALUE, "%s from no address", __func__);
    return copy(call.context, handle, to, true, (unsigned long long)from, false, bytes, 0);
}

API cuMemcpyDtoHAsync_v2(void* to, unsigned long long from, size_t bytes, Stream* handle) {
    CALL();
    return copy(call.context, handle, (unsigned long long)to, false, from, true, bytes, 0);
}

API cuMemcpyDtoDAsync_v2(unsigned long long to, unsigned long long from, size_t bytes, Stream* handle) {
    CALL();
    if (to < from + bytes && from < to + bytes) return misuse(INVALID_VALUE, "a copy of %zu bytes to where they overlap", bytes);
    return copy(call.context, handle, to, true, from, true, bytes, 0);
}

API cuMemsetD8Async(unsigned long long to, unsigned char value, size_t bytes, Stream* handle) {
    CALL();
    return copy(call.context, handle, to, true, 0, false, bytes, value);
}
