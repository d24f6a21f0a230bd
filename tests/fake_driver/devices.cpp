// The driver, its devices and contexts; what tests ask.

#include "fake.h"

namespace {

bool is_device(int device) { return state.initialized && device >= 0 && device < state.settings.devices; }

} // namespace

API cuDriverGetVersion(int* version) { return *version = (int)state.settings.version, SUCCESS; }

API cuInit(unsigned) {
    std::lock_guard<std::recursive_mutex> guard(state.lock);
    if (state.settings.fail_init) return state.settings.fail_init;
    if (state.settings.devices <= 0) return NO_DEVICE;
    state.initialized = true;
    return SUCCESS;
}

API cuDeviceGetCount(int* count) {
    if (!state.initialized) return NOT_INITIALIZED;
    return *count = (int)state.settings.devices, SUCCESS;
}

API cuDeviceGet(int* device, int ordinal) {
    if (!is_device(ordinal)) return INVALID_DEVICE;
    return *device = ordinal, SUCCESS;
}

API cuDeviceGetName(char* name, int length, int device) {
    if (!is_device(device)) return INVALID_DEVICE;
    snprintf(name, (size_t)length, "Fake GPU %d", device);
    return SUCCESS;
}

API cuDeviceTotalMem_v2(size_t* bytes, int device) {
    if (!is_device(device)) return INVALID_DEVICE;
    return *bytes = (size_t)state.settings.memory, SUCCESS;
}

API cuDeviceGetAttribute(int* value, int attribute, int device) {
    if (!is_device(device)) return INVALID_DEVICE;
    switch (attribute) {
        case 1: return *value = 1024, SUCCESS;         // threads a block
        case 8: return *value = 48 << 10, SUCCESS;     // shared memory a block
        case 10: return *value = 32, SUCCESS;          // threads a warp
        case 16: return *value = 4, SUCCESS;           // multiprocessors
        case 39: return *value = 2048, SUCCESS;        // threads a multiprocessor
        case 75: return *value = state.settings.capability / 10, SUCCESS;
        case 76: return *value = state.settings.capability % 10, SUCCESS;
        case 81: return *value = 228 << 10, SUCCESS;   // shared memory a multiprocessor
        case 97: return *value = 227 << 10, SUCCESS;   // shared memory a block, if asked for
        default: return misuse(INVALID_VALUE, "the fake driver knows no attribute %d of a GPU", attribute);
    }
}

// ---- contexts

namespace {

template <class T> void forget(Live<T>& all, Context* context) {
    for (auto it = all.begin(); it != all.end();) {
        T* one = *it;
        if (one->context != context) {
            ++it;
            continue;
        }
        it = all.erase(it);
        delete one;
    }
}

long long lives_in(Context* context) {
    long long count = 0;
    auto add = [&](const auto& all) {
        for (auto* one : all) count += one->context == context;
    };
    add(state.streams), add(state.events), add(state.modules), add(state.execs), add(state.graphs);
    for (const auto& [_, allocation] : state.memory) count += allocation.context == context;
    return count - 1; // the stream of no name
}

// All that is in it goes with it.
void destroy(Context* context) {
    if (!context->failed) {
        drain_all(context);
        state.left_behind += lives_in(context);
    }
    for (auto it = state.memory.begin(); it != state.memory.end();) {
        auto here = it++;
        if (here->second.context == context) release(here);
    }
    forget(state.streams, context), forget(state.events, context), forget(state.functions, context);
    forget(state.modules, context), forget(state.execs, context), forget(state.graphs, context);
    if (context->primary) state.primaries.erase(context->device);
    state.contexts.erase(context);
    delete context;
}

Context* create(int device, bool primary) {
    Context* context = new Context{device, primary, 0, 0, nullptr};
    context->standard = new Stream{context, true};
    state.contexts.insert(context);
    state.streams.insert(context->standard);
    return context;
}

} // namespace

API cuDevicePrimaryCtxRetain(Context** context, int device) {
    std::lock_guard<std::recursive_mutex> guard(state.lock);
    if (!is_device(device)) return INVALID_DEVICE;
    if (state.settings.fail_context) return state.settings.fail_context;
    Context*& primary = state.primaries[device];
    if (!primary) primary = create(device, true);
    primary->retained++;
    return *context = primary, SUCCESS;
}

API cuDevicePrimaryCtxRelease_v2(int device) {
    std::lock_guard<std::recursive_mutex> guard(state.lock);
    auto primary = state.primaries.find(device);
    if (primary == state.primaries.end()) return misuse(INVALID_CONTEXT, "a primary context released too often");
    if (--primary->second->retained == 0) destroy(primary->second);
    return SUCCESS;
}

API cuCtxCreate_v2(Context** context, unsigned, int device) {
    std::lock_guard<std::recursive_mutex> guard(state.lock);
    if (!is_device(device)) return INVALID_DEVICE;
    if (state.settings.fail_context) return state.settings.fail_context;
    stack.push_back(*context = create(device, false));
    return SUCCESS;
}

API cuCtxDestroy_v2(Context* context) {
    std::lock_guard<std::recursive_mutex> guard(state.lock);
    ALIVE(contexts, context);
    if (context->primary) return misuse(INVALID_CONTEXT, "a primary context destroyed");
    if (!stack.empty() && stack.back() == context) stack.pop_back();
    destroy(context);
    return SUCCESS;
}

API cuCtxPushCurrent_v2(Context* context) {
    std::lock_guard<std::recursive_mutex> guard(state.lock);
    ALIVE(contexts, context);
    stack.push_back(context);
    return SUCCESS;
}

API cuCtxPopCurrent_v2(Context** context) {
    std::lock_guard<std::recursive_mutex> guard(state.lock);
    if (stack.empty()) return misuse(INVALID_CONTEXT, "a context popped where none is current");
    *context = stack.back();
    stack.pop_back();
    return SUCCESS;
}

API cuCtxGetCurrent(Context** context) { return *context = stack.empty() ? nullptr : stack.back(), SUCCESS; }

API cuCtxSetCurrent(Context* context) {
    std::lock_guard<std::recursive_mutex> guard(state.lock);
    if (context) ALIVE(contexts, context);
    if (!stack.empty()) stack.pop_back();
    if (context) stack.push_back(context);
    return SUCCESS;
}

API cuCtxGetDevice(int* device) {
    std::lock_guard<std::recursive_mutex> guard(state.lock);
    if (stack.empty() || !state.contexts.count(stack.back())) return INVALID_CONTEXT;
    return *device = stack.back()->device, SUCCESS;
}

API cuCtxSynchronize() {
    CALL();
    if (!may_wait()) return misuse(CAPTURE_UNSUPPORTED, "%s while this thread records a graph", __func__);
    drain_all(call.context);
    return call.context->failed;
}

// ---- what tests ask

namespace {

struct Count {
    const char* name;
    long long value;
};

std::vector<Count> counts() {
    const auto streams = (long long)(state.streams.size() - state.contexts.size());
    for (const auto& [address, allocation] : state.memory)
        if (!borders_stand(address, allocation.bytes)) misuse(0, "an allocation of %zu bytes was written outside of", allocation.bytes);
    long long bytes = 0, current = 0;
    for (const auto& [_, used] : state.used) bytes += used;
    for (Context* context : stack) current += context != nullptr;
    return {
        // There now.
        {"contexts", (long long)state.contexts.size()}, {"streams", streams}, {"events", (long long)state.events.size()},
        {"buffers", (long long)state.memory.size()}, {"bytes", bytes}, {"modules", (long long)state.modules.size()},
        {"graphs", (long long)(state.graphs.size() + state.execs.size())}, {"current", current},
        // Since the beginning. Left behind: what was there yet when its context was destroyed.
        {"allocations", state.allocations}, {"peak_bytes", state.peak_bytes}, {"modules_loaded", state.modules_loaded},
        // Blocking captures: by streams that wait for the stream of no name.
        {"launches", state.launches}, {"kernels_run", state.kernels_run}, {"graph_launches", state.graph_launches},
        {"graphs_run", state.graphs_run}, {"blocking_captures", state.blocking_captures},
        {"copies", state.copies}, {"fills", state.fills}, {"left_behind", state.left_behind}, {"misuses", state.misuses},
    };
}

__attribute__((destructor)) void report() {
    if (state.settings.report.empty()) return;
    std::lock_guard<std::recursive_mutex> guard(state.lock);
    FILE* file = fopen(state.settings.report.c_str(), "w");
    if (!file) return;
    for (const Count& count : counts()) fprintf(file, "%s %lld\n", count.name, count.value);
    fprintf(file, "first_misuse %s\n", state.first_misuse.c_str());
    fclose(file);
}

} // namespace

extern "C" __attribute__((visibility("default"))) long long fake_cuda_count(const char* name) {
    std::lock_guard<std::recursive_mutex> guard(state.lock);
    for (const Count& count : counts())
        if (!strcmp(count.name, name)) return count.value;
    return -1;
}

extern "C" __attribute__((visibility("default"))) const char* fake_cuda_first_misuse() { return state.first_misuse.c_str(); }
