// Modules and kernels.

#include "fake.h"

#include <dlfcn.h>

namespace {

// The CUDA that brought a version of PTX; 0 if it is not one.
int cuda_of(int major, int minor) {
    if (major == 7) return 11000 + 10 * minor;
    if (major == 8) return 12000 + 10 * (minor > 5 ? minor + 1 : minor);
    return major == 9 ? 13000 + 10 * minor : 0;
}

size_t size_of(const char* type) {
    const char* digits = type + strcspn(type, "0123456789");
    return (size_t)atoi(digits) / 8;
}

// What PTX says of a kernel: parameters and threads a block.
bool describe(Function& function) {
    const std::string& ptx = function.module->ptx;
    for (size_t at = 0; (at = ptx.find(".entry", at)) != std::string::npos;) {
        at += 6;
        const size_t start = ptx.find_first_not_of(" \t\n", at), end = ptx.find_first_of(" \t\n({", start);
        if (end == std::string::npos || ptx.compare(start, end - start, function.name)) continue;
        const std::string head = ptx.substr(end, ptx.find('{', end) - end);
        for (size_t p = 0; (p = head.find(".param", p)) != std::string::npos;) {
            p += 6;
            const std::string one = head.substr(p, head.find_first_of(",)", p) - p);
            unsigned align = 0;
            char type[16] = "";
            if (sscanf(one.c_str(), " .align %u .%15s", &align, type) != 2 && sscanf(one.c_str(), " .%15s", type) != 1) return false;
            const size_t bracket = one.find('[');
            const size_t size = size_of(type) * (bracket == std::string::npos ? 1 : (size_t)atoll(&one[bracket + 1]));
            const size_t to = align ? align : size;
            if (!to) return false;
            function.bytes = (function.bytes + to - 1) / to * to;
            function.offsets.push_back(function.bytes);
            function.sizes.push_back(size);
            function.bytes += size;
        }
        for (const char* directive : {".maxntid", ".reqntid"}) {
            unsigned x = 1, y = 1, z = 1;
            const size_t d = head.find(directive);
            if (d != std::string::npos && sscanf(&head[d + 8], " %u , %u , %u", &x, &y, &z) > 0) function.threads = (unsigned long long)x * y * z;
        }
        return function.sizes_known = true;
    }
    return false;
}

void say(std::string text, unsigned count, const int* keys, void** values) {
    char* buffer = nullptr;
    size_t length = 0;
    for (unsigned i = 0; i < count; i++) {
        if (keys[i] == 5) buffer = (char*)values[i];
        if (keys[i] == 6) length = (size_t)values[i];
    }
    if (buffer && length) snprintf(buffer, length, "%s", text.c_str());
}

} // namespace

API cuModuleLoadDataEx(Module** module, const void* image, unsigned count, int* keys, void** values) {
    CALL();
    const std::string ptx = (const char*)image;
    auto refuse = [&](int code, const std::string& text) { return say(text, count, keys, values), code; };
    if (state.settings.refuse_ptx) return refuse(state.settings.refuse_ptx, "ptxas fatal   : refused as the test wants");
    int major, minor, target;
    const size_t version = ptx.find(".version"), sm = ptx.find(".target sm_");
    if (version == std::string::npos || sscanf(&ptx[version], ".version %d.%d", &major, &minor) != 2 || !cuda_of(major, minor))
        return refuse(INVALID_PTX, "ptxas fatal   : Missing .version directive at start of file");
    if (cuda_of(major, minor) > state.settings.version)
        return refuse(UNSUPPORTED_PTX_VERSION, "ptxas application ptx input, fatal   : Unsupported .version");
    if (sm == std::string::npos || sscanf(&ptx[sm], ".target sm_%d", &target) != 1)
        return refuse(INVALID_PTX, "ptxas fatal   : Missing .target directive");
    const size_t after = ptx.find_first_not_of("0123456789", sm + 11);
    const bool only = after != std::string::npos && ptx[after] == 'a';
    if (target > state.settings.capability || (only && target != state.settings.capability)) return refuse(NO_BINARY_FOR_GPU, "");

    auto* loaded = new Module{call.context, nullptr, ptx, ptx.find(".entry") != std::string::npos, {}};
    if (!state.settings.kernels.empty()) {
        const std::string line = ptx.substr(0, ptx.find('\n')), made = "made this of ";
        const size_t at = line.rfind(made), dot = line.rfind(".cu");
        std::string path = "(the first line does not say of which file it is made)";
        if (at != std::string::npos && dot != std::string::npos && dot > at) {
            path = state.settings.kernels + "/" + line.substr(at + made.size(), dot - at - made.size()) + ".so";
            loaded->library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
        }
        if (!loaded->library) {
            const char* why = dlerror();
            delete loaded;
            return refuse(FILE_NOT_FOUND, "no kernels to run: " + path + ": " + (why ? why : ""));
        }
    }
    state.modules_loaded++;
    state.modules.insert(*module = loaded);
    return SUCCESS;
}

API cuModuleUnload(Module* module) {
    CALL();
    ALIVE(modules, module);
    drain_all(call.context);
    for (Function* function : module->functions) state.functions.erase(function), delete function;
    state.modules.erase(module);
    delete module;
    return call.context->failed;
}

API cuModuleGetFunction(Function** function, Module* module, const char* name) {
    CALL();
    ALIVE(modules, module);
    for (Function* known : module->functions)
        if (known->name == name) return *function = known, SUCCESS;
    auto found = std::make_unique<Function>();
    found->context = module->context, found->module = module, found->name = name;
    if (!describe(*found) && module->has_entries) return NOT_FOUND;
    if (module->library) {
        auto* size = (int (*)())dlsym(module->library, (found->name + "_params").c_str());
        found->run = (void (*)(const void*, const unsigned*, int))dlsym(module->library, name);
        if (!size || !found->run) return misuse(NOT_FOUND, "kernel %s is in the PTX and not in the library", name);
        if (auto* shared = (int*)dlsym(module->library, (found->name + "_shared").c_str())) found->wanted = *shared;
        if (!found->sizes_known) found->sizes = {(size_t)size()}, found->offsets = {0}, found->bytes = found->sizes[0], found->sizes_known = true;
        if ((size_t)size() != found->bytes)
            return misuse(INVALID_VALUE, "kernel %s takes %zu bytes in the PTX and %d in the library", name, found->bytes, size());
    }
    *function = found.release();
    module->functions.push_back(*function);
    state.functions.insert(*function);
    return SUCCESS;
}

API cuFuncGetParamInfo(Function* function, size_t index, size_t* offset, size_t* size) {
    CALL();
    ALIVE(functions, function);
    // The call came with CUDA 12.4.
    if (!function->sizes_known || state.settings.version < 12040) return NOT_SUPPORTED;
    if (index >= function->sizes.size()) return INVALID_VALUE;
    return *offset = function->offsets[index], *size = function->sizes[index], SUCCESS;
}

API cuFuncGetAttribute(int* value, int attribute, Function* function) {
    CALL();
    ALIVE(functions, function);
    switch (attribute) {
        case 0: return *value = function->threads ? (int)function->threads : 1024, SUCCESS;
        case 1: return *value = 0, SUCCESS;  // shared memory
        case 3: return *value = 0, SUCCESS;  // local memory
        case 4: return *value = 32, SUCCESS; // registers
        default: return misuse(INVALID_VALUE, "the fake driver knows no attribute %d of a kernel", attribute);
    }
}

API cuFuncSetAttribute(Function* function, int attribute, int value) {
    CALL();
    ALIVE(functions, function);
    if (attribute != 8) return misuse(INVALID_VALUE, "the fake driver sets no attribute %d of a kernel", attribute);
    if (value < 0 || value > 227 << 10) return INVALID_VALUE;
    return function->shared = value > 48 << 10 ? value : 48 << 10, SUCCESS;
}

API cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Function* function, int threads, size_t shared) {
    CALL();
    ALIVE(functions, function);
    if (threads <= 0 || threads > 1024) return INVALID_VALUE;
    const int by_threads = 2048 / ((threads + 31) / 32 * 32), by_shared = (int)((228 << 10) / (shared + 1024));
    return *blocks = std::min(32, std::min(by_threads, by_shared)), SUCCESS;
}

API cuLaunchKernel(Function* function, unsigned x, unsigned y, unsigned z, unsigned u, unsigned v, unsigned w, unsigned shared,
    Stream* handle, void** params, void** extra) {
    CALL();
    STREAM(handle);
    ALIVE(functions, function);
    const char* name = function->name.c_str();
    if (function->context != call.context) return misuse(INVALID_HANDLE, "kernel %s of another context", name);
    const unsigned long long threads = (unsigned long long)u * v * w;
    if (!x || !y || !z || !threads || threads > 1024 || x > 0x7fffffff || y > 65535 || z > 65535 || w > 64 || extra)
        return misuse(INVALID_VALUE, "kernel %s: a launch of %u x %u x %u blocks of %u x %u x %u threads", name, x, y, z, u, v, w);
    // A GPU would run fewer threads than the kernel is written for.
    if (function->threads && threads != function->threads)
        return misuse(INVALID_VALUE, "kernel %s: %llu threads a block, made for %llu", name, threads, function->threads);
    if (shared > (unsigned)function->shared || shared < (unsigned)function->wanted) return misuse(INVALID_VALUE, "kernel %s: %u bytes of shared memory", name, shared);
    if (!function->sizes.empty() && !params) return misuse(INVALID_VALUE, "kernel %s: no parameters", name);
    // Copied now, on 16 bytes.
    auto copied = std::make_shared<std::vector<max_align_t>>(function->bytes / sizeof(max_align_t) + 1);
    for (size_t i = 0; i < function->sizes.size(); i++) memcpy((char*)copied->data() + function->offsets[i], params[i], function->sizes[i]);
    state.launches++;
    return put(stream, [=]() -> int {
        if (!state.functions.count(function)) return misuse(ILLEGAL_ADDRESS, "a graph's kernel whose module was unloaded");
        if (++state.kernels_run == state.settings.fail_launch) return ILLEGAL_ADDRESS;
        const unsigned grid[3] = {x, y, z};
        if (function->run) function->run(copied->data(), grid, state.settings.backwards);
        return SUCCESS;
    });
}
