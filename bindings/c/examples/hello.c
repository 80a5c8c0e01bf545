/* Makes a kernel of a string, compiles it or finds it in the cache, and launches it where
 * there is a GPU.
 *
 *     cc hello.c $(pkg-config --cflags --libs jitc) -ldl -o hello && ./hello
 *
 * It needs no CUDA toolkit: what it wants of the driver it asks the driver for. */
#include <dlfcn.h>
#include <jitc.h>
#include <stdio.h>

enum { COUNT = 1000, BLOCK = 256 };

static const char *const text =
    "extern \"C\" __global__ void scale(const float *x, float *y, unsigned n) {\n"
    "    unsigned at = blockIdx.x * blockDim.x + threadIdx.x;\n"
    "    if (at < n) y[at] = FACTOR * x[at];\n"
    "}\n";

static int failed(const char *what) {
    const jitc_error *error = jitc_last_error();
    fprintf(stderr, "%s: %s\n", what, error->message);
    if (error->hint) fprintf(stderr, "  %s\n", error->hint);
    if (error->log) fprintf(stderr, "%s\n", error->log);
    return 1;
}

/* The driver's functions that this program uses. */
struct driver {
    int (*retain)(void **context, int device);
    int (*make_current)(void *context);
    int (*allocate)(uint64_t *address, size_t bytes);
    int (*release)(uint64_t address);
    int (*to_gpu)(uint64_t to, const void *from, size_t bytes);
    int (*from_gpu)(void *to, uint64_t from, size_t bytes);
};

static int open_driver(struct driver *driver) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    if (!library) return 0;
    *(void **)&driver->retain = dlsym(library, "cuDevicePrimaryCtxRetain");
    *(void **)&driver->make_current = dlsym(library, "cuCtxSetCurrent");
    *(void **)&driver->allocate = dlsym(library, "cuMemAlloc_v2");
    *(void **)&driver->release = dlsym(library, "cuMemFree_v2");
    *(void **)&driver->to_gpu = dlsym(library, "cuMemcpyHtoD_v2");
    *(void **)&driver->from_gpu = dlsym(library, "cuMemcpyDtoH_v2");
    return driver->retain && driver->make_current && driver->allocate && driver->release && driver->to_gpu &&
           driver->from_gpu;
}

/* y = FACTOR * x on GPU 0. */
static int launch(const jitc_kernel *kernel) {
    static float x[COUNT], y[COUNT];
    struct driver driver;
    void *context;
    uint64_t on_gpu[2];
    int done = 0;
    for (int at = 0; at < COUNT; at++) x[at] = (float)at;
    if (!open_driver(&driver) || driver.retain(&context, 0) || driver.make_current(context) ||
        driver.allocate(&on_gpu[0], sizeof x) || driver.allocate(&on_gpu[1], sizeof y) ||
        driver.to_gpu(on_gpu[0], x, sizeof x)) {
        fprintf(stderr, "memory of GPU 0 cannot be used\n");
        return 1;
    }
    /* A word for each parameter: two addresses, and a number. */
    const uint64_t words[] = {on_gpu[0], on_gpu[1], COUNT};
    if (jitc_launch(kernel, 0, (COUNT + BLOCK - 1) / BLOCK, 1, 1, NULL, words, 3) != JITC_STATUS_OK) {
        done = failed("launch");
    } else if (driver.from_gpu(y, on_gpu[1], sizeof y)) {
        fprintf(stderr, "the kernel did not run\n");
        done = 1;
    } else {
        printf("launched: %g becomes %g\n", (double)x[4], (double)y[4]);
    }
    driver.release(on_gpu[0]);
    driver.release(on_gpu[1]);
    return done;
}

int main(void) {
    jitc *engine = NULL;
    jitc_kernel *kernel = NULL;
    const char *key = NULL, *outcome = NULL;
    const void *cubin = NULL;
    size_t bytes = 0;
    int done = 1;

    jitc_options options = {.size = sizeof options};
    const char *entries[] = {"scale"}, *defines[] = {"FACTOR=3.0f"};
    jitc_source_text source = {
        .size = sizeof source,
        .text = text,
        .entries = entries,
        .entry_count = 1,
        .defines = defines,
        .define_count = 1,
        .block = {BLOCK, 1, 1},
    };

    if (jitc_open(&options, &engine) != JITC_STATUS_OK) return failed("open");
    if (jitc_source(engine, &source, &kernel) != JITC_STATUS_OK || jitc_key(kernel, &key) != JITC_STATUS_OK ||
        jitc_prepare(kernel, &outcome) != JITC_STATUS_OK ||
        jitc_cubin(kernel, &cubin, &bytes) != JITC_STATUS_OK) {
        done = failed("kernel");
    } else {
        printf("key %s: %s, %zu bytes of machine code\n", key, outcome, bytes);
        switch (jitc_load(kernel, 0)) {
        case JITC_STATUS_OK: done = launch(kernel); break;
        case JITC_STATUS_DEVICE:
            printf("not launched: %s\n", jitc_last_error()->message);
            done = 0;
            break;
        default: done = failed("load");
        }
    }
    jitc_free(kernel);
    jitc_close(engine);
    return done;
}
