// A stand-in for NVIDIA's driver, for tests on machines without a GPU: the functions that discon calls, and a few that a host program
// would. A GPU's memory is memory of this process, with a border on either side that must stay as it is; new memory reads as NaN.
// A kernel is the function of its name in FAKE_CUDA_KERNELS/FILE.so, where the first line of the PTX ends in "made this of FILE.cu":
// the kernel's own source, compiled for the host. What is wrong with a call is counted as a misuse beside being an error.
//
// It shows mistakes of who calls: handles that are no more, memory that is not theirs or never freed, kernels with the wrong
// parameters or number of threads, calls that may not be made while a graph is recorded, results that nobody waited for. It cannot
// show races on a GPU, nor what its compiler makes of PTX.
//
// Settings, read from the environment when the library is loaded:
//   FAKE_CUDA_DEVICES=N           GPUs (1)
//   FAKE_CUDA_VERSION=N           the driver's CUDA, 1000 * major + 10 * minor (12040); PTX of a newer one is refused
//   FAKE_CUDA_CAPABILITY=M.N      compute capability (9.0); PTX for a higher one is refused
//   FAKE_CUDA_MEMORY=BYTES        memory of a GPU (64 GiB)
//   FAKE_CUDA_FAIL_INIT=CODE      cuInit fails
//   FAKE_CUDA_FAIL_CONTEXT=CODE   no context can be made
//   FAKE_CUDA_FAIL_ALLOCATION=N   the Nth allocation finds no memory
//   FAKE_CUDA_FAIL_LAUNCH=N       the Nth kernel that runs reads where it may not: from then on its context answers 700
//   FAKE_CUDA_REFUSE_PTX=CODE     no module can be loaded
//   FAKE_CUDA_KERNELS=FOLDER      kernels to run; without it launches are only counted
//   FAKE_CUDA_BACKWARDS=1         blocks, and threads within them, run in the opposite order
//   FAKE_CUDA_LAZY=1              work waits in its stream until somebody waits for it; else it is done at the call
//   FAKE_CUDA_REPORT=FILE         the counts are written there when the process ends
// A program that has it loaded may also ask: `long long fake_cuda_count(const char*)`, `const char* fake_cuda_first_misuse()`.

#pragma once

#include <algorithm>
#include <chrono>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_set>
#include <utility>
#include <vector>

#define API extern "C" __attribute__((visibility("default"))) int

namespace fake {

enum Code {
    SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_CONTEXT = 201,
    NO_BINARY_FOR_GPU = 209, INVALID_PTX = 218, UNSUPPORTED_PTX_VERSION = 222, FILE_NOT_FOUND = 301, INVALID_HANDLE = 400,
    ILLEGAL_STATE = 401, NOT_FOUND = 500, NOT_READY = 600, ILLEGAL_ADDRESS = 700, CONTEXT_IS_DESTROYED = 709,
    NOT_SUPPORTED = 801, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901, CAPTURE_ISOLATION = 905,
    CAPTURE_IMPLICIT = 906, CAPTURED_EVENT = 907, CAPTURE_WRONG_THREAD = 908, NOT_INITIALIZED = 3,
};

inline long long number(const char* name, long long otherwise) {
    const char* text = getenv(name);
    return text && *text ? atoll(text) : otherwise;
}

struct Settings {
    long long devices = number("FAKE_CUDA_DEVICES", 1);
    long long version = number("FAKE_CUDA_VERSION", 12040);
    int capability = 90;
    long long memory = number("FAKE_CUDA_MEMORY", 64LL << 30);
    int fail_init = (int)number("FAKE_CUDA_FAIL_INIT", 0);
    int fail_context = (int)number("FAKE_CUDA_FAIL_CONTEXT", 0);
    long long fail_allocation = number("FAKE_CUDA_FAIL_ALLOCATION", 0);
    long long fail_launch = number("FAKE_CUDA_FAIL_LAUNCH", 0);
    int refuse_ptx = (int)number("FAKE_CUDA_REFUSE_PTX", 0);
    bool backwards = number("FAKE_CUDA_BACKWARDS", 0);
    bool lazy = number("FAKE_CUDA_LAZY", 0);
    std::string kernels, report;

    Settings() {
        int major, minor;
        const char* text = getenv("FAKE_CUDA_CAPABILITY");
        if (text && sscanf(text, "%d.%d", &major, &minor) == 2) capability = 10 * major + minor;
        if ((text = getenv("FAKE_CUDA_KERNELS"))) kernels = text;
        if ((text = getenv("FAKE_CUDA_REPORT"))) report = text;
    }
};

using Work = std::function<int()>;
struct Context;
struct Stream;

struct Allocation {
    Context* context;
    size_t bytes;
};

struct Module {
    Context* context;
    void* library = nullptr;
    std::string ptx;
    bool has_entries;
    std::vector<struct Function*> functions;
};

struct Function {
    Context* context;
    Module* module;
    std::string name;
    void (*run)(const void*, const unsigned*, int) = nullptr;
    bool sizes_known = false;
    std::vector<size_t> offsets, sizes;
    size_t bytes = 0;          // of all parameters
    unsigned long long threads = 0; // a block, as its source says; 0 if it does not
    int shared = 48 << 10;     // what a launch may ask for
    int wanted = 0;            // and what its source says that it wants
};

// The place of an event in a stream's work.
struct Mark {
    Stream* stream;
    bool passed = false;
    std::chrono::steady_clock::time_point time;
};

struct Event {
    Context* context;
    std::shared_ptr<Mark> mark;
    Stream* captured_in = nullptr;
};

struct Stream {
    Context* context;
    bool blocking;
    std::deque<Work> queue = {};
    bool captures = false, valid = true;
    unsigned mode = 0;
    std::thread::id by = {};
    std::vector<Work> recorded = {};
};

struct Graph {
    Context* context;
    std::shared_ptr<std::vector<Work>> work;
};

struct Exec {
    Context* context;
    std::shared_ptr<std::vector<Work>> work;
};

struct Context {
    int device;
    bool primary;
    long long retained = 0;
    int failed = 0;
    Stream* standard; // the stream of no name
};

template <class T> using Live = std::unordered_set<T*>;

// All there is. It is never destroyed: threads may still call while the process ends.
struct State {
    Settings settings;
    std::recursive_mutex lock;
    bool initialized = false;
    std::map<int, Context*> primaries;
    std::map<unsigned long long, Allocation> memory;
    std::map<int, long long> used;
    Live<Context> contexts;
    Live<Stream> streams;
    Live<Event> events;
    Live<Module> modules;
    Live<Function> functions;
    Live<Graph> graphs;
    Live<Exec> execs;
    long long allocations = 0, peak_bytes = 0, launches = 0, kernels_run = 0, graph_launches = 0, graphs_run = 0, blocking_captures = 0,
              copies = 0, fills = 0, modules_loaded = 0, left_behind = 0, misuses = 0;
    std::string first_misuse;
};
inline State& state = *new State;
inline thread_local std::vector<Context*> stack;

__attribute__((format(printf, 2, 3))) inline int misuse(int code, const char* format, ...) {
    char text[500];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (state.misuses++ == 0) state.first_misuse = text;
    return code;
}

// A call that needs a context that is current in this thread, and in which no kernel has failed.
struct Call {
    std::lock_guard<std::recursive_mutex> guard{state.lock};
    Context* context = nullptr;
    int code = SUCCESS;

    Call() {
        if (stack.empty() || !stack.back()) code = misuse(INVALID_CONTEXT, "a call without a current context");
        else if (!state.contexts.count(stack.back())) code = misuse(CONTEXT_IS_DESTROYED, "a call in a context that is no more");
        else context = stack.back(), code = context->failed;
    }
};
#define CALL()                                                                                                         \
    Call call;                                                                                                         \
    if (call.code) return call.code

// Without a handle that is alive, the function ends.
#define ALIVE(set, handle)                                                                                             \
    if (!state.set.count(handle)) return misuse(INVALID_HANDLE, "%s: no such handle in %s", __func__, #set)

inline Stream* named(Context* context, Stream* stream) { return stream ? stream : context->standard; }
#define STREAM(handle)                                                                                                 \
    Stream* stream = named(call.context, handle);                                                                      \
    ALIVE(streams, stream);                                                                                            \
    if (stream->context != call.context) return misuse(INVALID_CONTEXT, "%s: a stream of another context", __func__)

// ---- memory

inline const size_t BORDER = 256;
inline const int BORDER_BYTE = 0xab;

inline bool borders_stand(unsigned long long address, size_t bytes) {
    const unsigned char* at = (const unsigned char*)address;
    for (size_t i = 0; i < BORDER; i++)
        if (at[-1 - (long)i] != BORDER_BYTE || at[bytes + i] != BORDER_BYTE) return false;
    return true;
}

inline bool within(unsigned long long address, size_t bytes) {
    auto next = state.memory.upper_bound(address);
    if (next == state.memory.begin()) return false;
    const auto& [start, allocation] = *--next;
    return bytes <= allocation.bytes && address - start <= allocation.bytes - bytes;
}

inline void release(std::map<unsigned long long, Allocation>::iterator it) {
    const auto [address, allocation] = *it;
    if (!borders_stand(address, allocation.bytes)) misuse(0, "an allocation of %zu bytes was written outside of", allocation.bytes);
    state.used[allocation.context->device] -= (long long)allocation.bytes;
    state.memory.erase(it);
    free((void*)(address - BORDER));
}

// ---- streams

// One piece of work. What fails fails its context.
inline void perform(Context* context, const Work& work) {
    if (context->failed) return;
    context->failed = work();
}

// Does a stream's work in order, until `enough`.
inline void drain(Stream* stream, const std::function<bool()>& enough = [] { return false; }) {
    while (!stream->queue.empty() && !enough()) {
        const Work work = std::move(stream->queue.front());
        stream->queue.pop_front();
        perform(stream->context, work);
    }
}

inline void drain_all(Context* context) {
    for (Stream* stream : std::vector<Stream*>(state.streams.begin(), state.streams.end()))
        if (stream->context == context) drain(stream);
}

inline void pass(const std::shared_ptr<Mark>& mark) {
    if (!mark->passed && state.streams.count(mark->stream)) drain(mark->stream, [&] { return mark->passed; });
}

inline int put(Stream* stream, Work work) {
    Context* context = stream->context;
    if (stream->captures) {
        if (!stream->valid) return CAPTURE_INVALIDATED;
        stream->recorded.push_back(std::move(work));
        return SUCCESS;
    }
    // The stream of no name and those that are not made otherwise wait for each other.
    if (stream == context->standard) {
        for (Stream* other : state.streams) {
            if (other->context != context || !other->blocking || other == stream) continue;
            if (other->captures) return other->valid = false, CAPTURE_IMPLICIT;
            drain(other);
        }
    } else if (stream->blocking) {
        drain(context->standard);
    }
    if (state.settings.lazy) stream->queue.push_back(std::move(work));
    else perform(context, work);
    return SUCCESS;
}

// Whether this thread may do what might wait for the GPU: not while it records a graph.
inline bool may_wait() {
    bool may = true;
    for (Stream* stream : state.streams) {
        if (!stream->captures || stream->mode > 1 || (stream->mode == 1 && stream->by != std::this_thread::get_id())) continue;
        stream->valid = may = false;
    }
    return may;
}

inline int waited_while_it_records(Stream* stream, const char* call) {
    stream->valid = false;
    return misuse(CAPTURE_UNSUPPORTED, "%s: the stream records a graph", call);
}

} // namespace fake

using namespace fake;
