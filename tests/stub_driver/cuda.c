/* A driver library without a GPU: it gives the answers that a test wrote down, and
 * records every call.
 *
 * STUB_DRIVER names a folder. `answers` there has a line `NAME VALUE` for what is not
 * to be as usual; it is read at every call, so that a test may change it on the way.
 * `FUNCTION VALUE` is a status, `FUNCTION#N VALUE` that of the N-th call alone.
 * Every call adds a line to `calls`. */
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned u32;
typedef unsigned long long u64;

enum { SUCCESS = 0, INVALID_VALUE = 1, INVALID_DEVICE = 101, INVALID_CONTEXT = 201, NOT_FOUND = 500 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static __thread void *current;

static FILE *in_folder(const char *name, const char *mode) {
    char path[4096];
    const char *folder = getenv("STUB_DRIVER");
    if (!folder) {
        fprintf(stderr, "stub driver: STUB_DRIVER names no folder\n");
        abort();
    }
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return fopen(path, mode);
}

/* The value of a name as text; 0 if nothing is written down. */
static int answer_text(const char *name, char *value, size_t size) {
    char line[1024], known[512];
    int found = 0, at;
    FILE *file = in_folder("answers", "r");
    if (!file) return 0;
    while (!found && fgets(line, sizeof line, file)) {
        if (sscanf(line, "%511s %n", known, &at) < 1 || strcmp(known, name)) continue;
        line[strcspn(line, "\n")] = 0;
        snprintf(value, size, "%s", line + at);
        found = 1;
    }
    fclose(file);
    return found;
}

static long answer(const char *name, long usual) {
    char value[512];
    return answer_text(name, value, sizeof value) ? strtol(value, NULL, 0) : usual;
}

/* As `answer`, of one of several: `NAME.WHICH`, else `NAME`. */
static long answer_of(const char *name, long which, long usual) {
    char full[512];
    snprintf(full, sizeof full, "%s.%ld", name, which);
    return answer(full, answer(name, usual));
}

static void record(const char *format, ...) {
    va_list arguments;
    pthread_mutex_lock(&lock);
    FILE *file = in_folder("calls", "a");
    if (file) {
        va_start(arguments, format);
        vfprintf(file, format, arguments);
        va_end(arguments);
        fputc('\n', file);
        fclose(file);
    }
    pthread_mutex_unlock(&lock);
}

/* The status of a call of this function. */
static int status(const char *function) {
    static struct { char name[64]; int calls; } known[128];
    char full[128];
    int at = 0, calls;
    pthread_mutex_lock(&lock);
    while (known[at].name[0] && strcmp(known[at].name, function)) at++;
    snprintf(known[at].name, sizeof known[at].name, "%s", function);
    calls = ++known[at].calls;
    pthread_mutex_unlock(&lock);
    snprintf(full, sizeof full, "%s#%d", function, calls);
    return (int)answer(full, answer(function, SUCCESS));
}

#define CHECK(function) do { int said = status(#function); if (said) return said; } while (0)
#define PLAIN(function, ...) \
    int function(__VA_ARGS__) { record(#function); return status(#function); }

/* Devices: attribute A of device D is `device.A.D`, else `device.A`. */

PLAIN(cuInit, u32 flags)

int cuDriverGetVersion(int *version) {
    CHECK(cuDriverGetVersion);
    *version = (int)answer("version", 13000);
    return SUCCESS;
}

int cuDeviceGetCount(int *count) {
    CHECK(cuDeviceGetCount);
    *count = (int)answer("count", 1);
    return SUCCESS;
}

int cuDeviceGet(int *device, int ordinal) {
    CHECK(cuDeviceGet);
    if (ordinal < 0 || ordinal >= answer("count", 1)) return INVALID_DEVICE;
    *device = ordinal;
    return SUCCESS;
}

int cuDeviceGetName(char *name, int length, int device) {
    CHECK(cuDeviceGetName);
    snprintf(name, (size_t)length, "Stub %d", device);
    return SUCCESS;
}

int cuDeviceGetUuid_v2(char *uuid, int device) {
    memset(uuid, device, 16);
    return SUCCESS;
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
    static const struct { int attribute; long usual; } H200[] = {
        {75, 9}, {76, 0}, {16, 132}, {81, 233472}, {97, 232448}, {82, 65536},
        {39, 2048}, {38, 62914560}, {95, 1}, {88, 0},
    };
    char name[64];
    long usual = 1;
    CHECK(cuDeviceGetAttribute);
    for (size_t at = 0; at < sizeof H200 / sizeof *H200; at++)
        if (H200[at].attribute == attribute) usual = H200[at].usual;
    snprintf(name, sizeof name, "device.%d", attribute);
    *value = (int)answer_of(name, device, usual);
    return SUCCESS;
}

/* Contexts: the primary one of device D is 0x1000 + D. */

int cuDevicePrimaryCtxRetain(void **context, int device) {
    record("cuDevicePrimaryCtxRetain device %d", device);
    CHECK(cuDevicePrimaryCtxRetain);
    *context = (void *)(uintptr_t)(0x1000 + device);
    return SUCCESS;
}

int cuDevicePrimaryCtxRelease_v2(int device) {
    record("cuDevicePrimaryCtxRelease device %d", device);
    return status("cuDevicePrimaryCtxRelease");
}

int cuCtxSetCurrent(void *context) {
    record("cuCtxSetCurrent %p", context);
    CHECK(cuCtxSetCurrent);
    current = context;
    return SUCCESS;
}

int cuCtxGetDevice(int *device) {
    CHECK(cuCtxGetDevice);
    if (!current) return INVALID_CONTEXT;
    *device = (int)((uintptr_t)current - 0x1000);
    return SUCCESS;
}

int cuCtxGetCurrent(void **context) {
    CHECK(cuCtxGetCurrent);
    *context = current;
    return SUCCESS;
}

PLAIN(cuCtxSynchronize, void)

/* Modules, and their functions by name. */

static struct { char name[128]; void *module; } functions[256];
static int function_count, module_count;

static const char *name_of(void *function) {
    uintptr_t at = (uintptr_t)function - 0x5000;
    return at < (uintptr_t)function_count ? functions[at].name : "?";
}

/* FNV-1a over a whole image, whose length is where its table of sections ends; over a text
 * up to its NUL. */
static u64 digest(const unsigned char *image) {
    u64 sections, hash = 14695981039346656037ull;
    uint16_t size, count;
    if (memcmp(image, "\177ELF", 4)) {
        for (; *image; image++) hash = (hash ^ *image) * 1099511628211ull;
        return hash;
    }
    memcpy(&sections, image + 40, 8);
    memcpy(&size, image + 58, 2);
    memcpy(&count, image + 60, 2);
    for (u64 at = 0; at < sections + (u64)size * count; at++) hash = (hash ^ image[at]) * 1099511628211ull;
    return hash;
}

/* `capturing 1`: a stream captures that waits for the default stream, on any thread;
 * `capturing 2`: one that does not, on this thread. Unsafe calls spoil it. */

static __thread int capture_mode;

int cuThreadExchangeStreamCaptureMode(int *mode) {
    int before = capture_mode;
    CHECK(cuThreadExchangeStreamCaptureMode);
    capture_mode = *mode;
    *mode = before;
    return SUCCESS;
}

int cuStreamIsCapturing(void *stream, int *capturing) {
    CHECK(cuStreamIsCapturing);
    if (!stream && answer("capturing", 0) == 1) return 906;
    *capturing = 0;
    return SUCCESS;
}

static int spoils(const char *function) {
    if (!answer("capturing", 0) || capture_mode == 2) return 0;
    record("spoilt by %s", function);
    return 900;
}

int cuModuleLoadData(void **module, const void *image) {
    record("cuModuleLoadData image %016llx in %p", digest(image), current);
    CHECK(cuModuleLoadData);
    if (spoils("cuModuleLoadData")) return 900;
    if (!current) return INVALID_CONTEXT;
    pthread_mutex_lock(&lock);
    *module = (void *)(uintptr_t)(0x2000 + module_count++);
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

int cuModuleUnload(void *module) {
    record("cuModuleUnload %p in %p", module, current);
    if (spoils("cuModuleUnload")) return 900;
    return status("cuModuleUnload");
}

int cuModuleGetFunction(void **function, void *module, const char *name) {
    record("cuModuleGetFunction %s of %p", name, module);
    CHECK(cuModuleGetFunction);
    pthread_mutex_lock(&lock);
    snprintf(functions[function_count].name, sizeof functions->name, "%s", name);
    functions[function_count].module = module;
    *function = (void *)(uintptr_t)(0x5000 + function_count++);
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

/* Variables: `global.NAME` is how many bytes one has, which are 1, 2, 3 and so on. */

int cuModuleGetGlobal_v2(u64 *address, size_t *bytes, void *module, const char *name) {
    char key[256];
    record("cuModuleGetGlobal %s of %p", name, module);
    CHECK(cuModuleGetGlobal);
    snprintf(key, sizeof key, "global.%s", name);
    *bytes = (size_t)answer(key, 0);
    *address = 0x7000;
    return *bytes ? SUCCESS : NOT_FOUND;
}

int cuMemcpyHtoD_v2(u64 to, const void *from, size_t size) {
    char text[513] = "";
    for (size_t at = 0; at < size && at < 256; at++)
        snprintf(text + 2 * at, 3, "%02x", ((const unsigned char *)from)[at]);
    record("cuMemcpyHtoD 0x%llx in %p bytes %s", to, current, text);
    return status("cuMemcpyHtoD");
}

int cuMemcpyDtoH_v2(void *to, u64 from, size_t size) {
    record("cuMemcpyDtoH 0x%llx in %p", from, current);
    CHECK(cuMemcpyDtoH);
    for (size_t at = 0; at < size; at++) ((unsigned char *)to)[at] = (unsigned char)(at + 1);
    return SUCCESS;
}

int cuFuncGetAttribute(int *value, int attribute, void *function) {
    char name[256];
    CHECK(cuFuncGetAttribute);
    snprintf(name, sizeof name, "cuFuncGetAttribute.%d", attribute);
    int said = (int)answer(name, SUCCESS);
    if (said) return said;
    snprintf(name, sizeof name, "function.%d", attribute);
    *value = (int)answer(name, attribute == 0 ? 1024 : 0);
    return SUCCESS;
}

int cuFuncSetAttribute(void *function, int attribute, int value) {
    record("cuFuncSetAttribute %s %d = %d", name_of(function), attribute, value);
    return status("cuFuncSetAttribute");
}

int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, void *function, int threads, size_t shared) {
    record("cuOccupancyMaxActiveBlocksPerMultiprocessor %s threads %d shared %zu", name_of(function), threads,
           shared);
    CHECK(cuOccupancyMaxActiveBlocksPerMultiprocessor);
    *blocks = (int)answer("blocks", 2);
    return SUCCESS;
}

/* Launches. `params.NAME` is the sizes of a kernel's parameters, with commas between. */

static void parameters(void *function, void **pointers, char *text, size_t size) {
    char key[256], sizes[512], *rest = sizes;
    size_t used = 0;
    snprintf(key, sizeof key, "params.%s", name_of(function));
    *text = 0;
    if (!answer_text(key, sizes, sizeof sizes)) return;
    for (int at = 0; *rest; at++) {
        long length = strtol(rest, &rest, 10);
        if (at && used + 1 < size) text[used++] = ',';
        for (long byte = 0; byte < length && used + 3 < size; byte++)
            used += (size_t)snprintf(text + used, size - used, "%02x", ((unsigned char *)pointers[at])[byte]);
        if (*rest == ',') rest++;
    }
    text[used] = 0;
}

/* With `store.NAME P`, a launch of that kernel sets the first `store.bytes` bytes behind its P-th parameter, from
 * 0, to `store.byte#N`, N its number from 1, else to `store.byte`. Needs `memory 1`. */
static void store(void *function, void **pointers) {
    static int launches;
    char name[256];
    snprintf(name, sizeof name, "store.%s", name_of(function));
    long place = answer(name, -1);
    if (place < 0) return;
    snprintf(name, sizeof name, "store.byte#%d", ++launches);
    u64 address = *(u64 *)pointers[place];
    memset((void *)(uintptr_t)address, (int)answer(name, answer("store.byte", 0)),
           (size_t)answer("store.bytes", 0));
}

int cuLaunchKernel(void *function, u32 x, u32 y, u32 z, u32 bx, u32 by, u32 bz, u32 shared, void *stream,
                   void **pointers, void **extra) {
    char text[4096];
    parameters(function, pointers, text, sizeof text);
    record("cuLaunchKernel %s grid %u,%u,%u block %u,%u,%u shared %u stream %p extra %d params %s",
           name_of(function), x, y, z, bx, by, bz, shared, stream, extra != NULL, text);
    store(function, pointers);
    return status("cuLaunchKernel");
}

struct attribute { int id; char pad[4]; int value; char rest[60]; };
struct config { u32 x, y, z, bx, by, bz, shared; void *stream; struct attribute *attributes; u32 count; };

int cuLaunchKernelEx(const struct config *config, void *function, void **pointers, void **extra) {
    char text[4096], attributes[256] = "";
    size_t used = 0;
    for (u32 at = 0; at < config->count; at++) {
        const int *value = &config->attributes[at].value;
        used += (size_t)snprintf(attributes + used, sizeof attributes - used, "%s%d=%d", at ? "," : "",
                                 config->attributes[at].id, *value);
        /* A cluster's three. */
        if (config->attributes[at].id == 4)
            used += (size_t)snprintf(attributes + used, sizeof attributes - used, "x%dx%d", value[1], value[2]);
    }
    parameters(function, pointers, text, sizeof text);
    record("cuLaunchKernelEx %s grid %u,%u,%u block %u,%u,%u shared %u stream %p attributes %s extra %d params %s",
           name_of(function), config->x, config->y, config->z, config->bx, config->by, config->bz, config->shared,
           config->stream, attributes, extra != NULL, text);
    return status("cuLaunchKernelEx");
}

/* Memory: `pointer.ADDRESS`, else `pointer`, is the device that an address belongs to. With
 * `memory 1` it is the host's, is as long as it was asked for, and holds what is copied. */

int cuPointerGetAttribute(void *value, int attribute, u64 address) {
    record("cuPointerGetAttribute %d of 0x%llx", attribute, address);
    CHECK(cuPointerGetAttribute);
    long device = answer_of("pointer", (long)address, -1);
    if (device < 0) return INVALID_VALUE;
    *(int *)value = (int)device;
    return SUCCESS;
}

static int allocate(u64 *address, size_t size) {
    size_t whole = answer("memory", 0) ? (size + 255) / 256 * 256 : 256;
    *address = (u64)(uintptr_t)aligned_alloc(256, whole);
    return SUCCESS;
}

static void copy(void *to, const void *from, size_t size) {
    if (answer("memory", 0)) memcpy(to, from, size);
}

int cuMemAlloc_v2(u64 *address, size_t size) {
    record("cuMemAlloc %zu in %p", size, current);
    CHECK(cuMemAlloc);
    return allocate(address, size);
}

int cuMemAllocAsync(u64 *address, size_t size, void *stream) {
    record("cuMemAllocAsync %zu in %p", size, current);
    CHECK(cuMemAllocAsync);
    return allocate(address, size);
}

PLAIN(cuMemFree_v2, u64 address)
PLAIN(cuMemFreeAsync, u64 address, void *stream)

int cuMemsetD8Async(u64 address, unsigned char value, size_t size, void *stream) {
    record("cuMemsetD8Async");
    CHECK(cuMemsetD8Async);
    if (answer("memory", 0)) memset((void *)(uintptr_t)address, value, size);
    return SUCCESS;
}

int cuMemcpyHtoDAsync_v2(u64 to, const void *from, size_t size, void *stream) {
    record("cuMemcpyHtoDAsync_v2");
    CHECK(cuMemcpyHtoDAsync_v2);
    copy((void *)(uintptr_t)to, from, size);
    return SUCCESS;
}

int cuMemcpyDtoHAsync_v2(void *to, u64 from, size_t size, void *stream) {
    record("cuMemcpyDtoHAsync_v2");
    CHECK(cuMemcpyDtoHAsync_v2);
    copy(to, (const void *)(uintptr_t)from, size);
    return SUCCESS;
}

PLAIN(cuMemcpyDtoDAsync_v2, u64 to, u64 from, size_t size, void *stream)

int cuMemGetInfo_v2(size_t *available, size_t *all) {
    *available = *all = (size_t)80 << 30;
    return SUCCESS;
}

/* Streams, events, graphs. */

int cuStreamCreate(void **stream, u32 flags) {
    record("cuStreamCreate in %p", current);
    CHECK(cuStreamCreate);
    *stream = (void *)0x3000;
    return SUCCESS;
}

int cuEventCreate(void **event, u32 flags) {
    CHECK(cuEventCreate);
    *event = (void *)0x4000;
    return SUCCESS;
}

/* `elapsed_us#N` of the N-th call, else `elapsed_us`. */
static int elapsed(float *ms) {
    static int calls;
    char name[64];
    snprintf(name, sizeof name, "elapsed_us#%d", ++calls);
    *ms = (float)answer(name, answer("elapsed_us", 240)) / 1000.0f;
    return SUCCESS;
}

int cuEventElapsedTime(float *ms, void *start, void *end) { return elapsed(ms); }
int cuEventElapsedTime_v2(float *ms, void *start, void *end) { return elapsed(ms); }

PLAIN(cuStreamDestroy_v2, void *stream)
PLAIN(cuStreamSynchronize, void *stream)
PLAIN(cuStreamWaitEvent, void *stream, void *event, u32 flags)
PLAIN(cuEventRecord, void *event, void *stream)
PLAIN(cuEventSynchronize, void *event)
PLAIN(cuEventDestroy_v2, void *event)

int cuStreamBeginCapture_v2(void *stream, int mode) {
    record("cuStreamBeginCapture stream %p mode %d", stream, mode);
    return status("cuStreamBeginCapture");
}

int cuStreamEndCapture(void *stream, void **graph) {
    record("cuStreamEndCapture stream %p", stream);
    *graph = NULL;
    CHECK(cuStreamEndCapture);
    *graph = (void *)answer("graph", 0x6000);
    return SUCCESS;
}

int cuGraphInstantiateWithFlags(void **exec, void *graph, u64 flags) {
    record("cuGraphInstantiate %p flags %llu", graph, flags);
    CHECK(cuGraphInstantiate);
    *exec = (void *)0x6100;
    return SUCCESS;
}

int cuGraphLaunch(void *exec, void *stream) {
    record("cuGraphLaunch %p stream %p", exec, stream);
    return status("cuGraphLaunch");
}

PLAIN(cuGraphExecDestroy, void *exec)
PLAIN(cuGraphDestroy, void *graph)

static int text_of(int code, const char **text) {
    static __thread char words[64];
    snprintf(words, sizeof words, "stub says %d", code);
    *text = words;
    return SUCCESS;
}

int cuGetErrorString(int code, const char **text) { return text_of(code, text); }
int cuGetErrorName(int code, const char **text) { return text_of(code, text); }
