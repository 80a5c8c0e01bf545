/* jitc: CUDA kernels compiled at run time, cached, and launched.
 *
 * Made by cbindgen of bindings/c/src: `cargo run -p jitc-c --example header` prints it.
 *
 * Every function but jitc_version, jitc_last_error, jitc_close and jitc_free returns a
 * jitc_status; what it gives comes through its last pointers, which are NULL or 0 after a
 * failure. jitc_last_error says what went wrong on this thread.
 *
 * Text is UTF-8 and ends with a 0 byte; paths are bytes of any kind. What is passed in is
 * read during the call and never kept. A NULL that is not allowed is
 * JITC_STATUS_ARGUMENT, as is a struct whose size is not one that this library knows:
 * structs with a size first are filled with 0, and their size set to sizeof, by the caller.
 *
 * Every function may be called from any thread, and objects be used by several at once;
 * only jitc_close and jitc_free must be the last to use theirs. No panic crosses the edge.
 */

#ifndef JITC_H
#define JITC_H

#include <stddef.h>
#include <stdint.h>

// What became of a call. Numbers keep their meaning; new ones may come.
enum jitc_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // It was done.
    JITC_STATUS_OK = 0,
    // Something that was passed cannot be: a NULL, a size, a value for a parameter.
    JITC_STATUS_ARGUMENT = 1,
    // A setting.
    JITC_STATUS_CONFIG = 2,
    // A family, or a source that is none.
    JITC_STATUS_TEMPLATE = 3,
    // A constant or an arch that cannot be.
    JITC_STATUS_SPEC = 4,
    // No compiler, or one that cannot do it.
    JITC_STATUS_TOOLCHAIN = 5,
    // The cache.
    JITC_STATUS_CACHE = 6,
    // The compiler refused the source; its words are the log of the error.
    JITC_STATUS_COMPILE = 7,
    // The driver did not load it.
    JITC_STATUS_LOAD = 8,
    // No driver, no GPU, or not this one.
    JITC_STATUS_DEVICE = 9,
    // A receipt or a signature that is demanded.
    JITC_STATUS_POLICY = 10,
    // The driver did not launch it.
    JITC_STATUS_LAUNCH = 11,
    // Nothing may compile, and it is not in the cache.
    JITC_STATUS_FORBIDDEN = 12,
    // It was to be loaded while a stream captures.
    JITC_STATUS_CAPTURING = 13,
    // It belongs to the process that this one was forked from.
    JITC_STATUS_FORKED = 14,
    // Anything else.
    JITC_STATUS_OTHER = 15,
    // A mistake of jitc itself. The call did nothing further; please report it.
    JITC_STATUS_PANIC = 16,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum jitc_status jitc_status;
#else
typedef int32_t jitc_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What a `jitc_argument` is.
enum jitc_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // A tensor on the GPU: `pointer` is a `DLTensor` or a `jitc_tensor`.
    JITC_KIND_TENSOR = 0,
    // A null pointer, for a parameter that is optional.
    JITC_KIND_NULL = 1,
    // A number: `value` has its bits, in the parameter's own type, from the lowest byte.
    JITC_KIND_VALUE = 2,
    // A launch size: `value`, from 1 to 4294967295.
    JITC_KIND_SIZE = 3,
    // A struct that is passed by value: `pointer` is to its `value` bytes.
    JITC_KIND_BYTES = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum jitc_kind jitc_kind;
#else
typedef int32_t jitc_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// The engine: settings, families, cache and compiler.
typedef struct jitc jitc;

// A kernel: what to compile, for one arch; its code once that is there; and where it is
// loaded, if it is.
typedef struct jitc_kernel jitc_kernel;

// Settings. 0 or NULL leaves each to the environment (`JITC_*`), else to the file that
// `config` or `JITC_CONFIG` names, else to its default.
typedef struct jitc_options {
    // `sizeof(jitc_options)`.
    size_t size;
    // Folder of the cache, which is read and written.
    const char *cache_dir;
    // Folders that are only read, in the order in which they are asked: `cache_ro_count`
    // paths.
    const char *const *cache_ro;
    // How many of them there are.
    size_t cache_ro_count;
    // Folder of families of one's own.
    const char *templates;
    // NVRTC: its library, or the folder of it.
    const char *nvrtc;
    // A `jitc.toml`. Unless it is named, none is looked for.
    const char *config;
    // A file of variables, for what the environment does not set.
    const char *env_file;
    // A preset of the families.
    const char *preset;
    // What to compile for, `sm_90a`: for GPUs that are not here.
    const char *arch;
    // What a miss may do: `compile`, `warn` or `forbid`.
    const char *miss;
    // The program `jitc` of the same build, which compiles in processes of its own.
    // NULL: it is looked for beside the running program and in `PATH`, else this
    // process compiles.
    const char *program;
    // How many variants are prepared at once; 0: as many as there are cores and memory.
    uint32_t jobs;
    // Not 0: nothing is fetched from the network.
    int32_t offline;
    // Not 0: this process compiles, whatever `program` is.
    int32_t in_process;
    // 0.
    int32_t reserved;
} jitc_options;

// What became of a `jitc_warm`.
typedef struct jitc_report {
    // `sizeof(jitc_report)`.
    size_t size;
    // Variants that were found in the cache.
    size_t hit;
    // Variants that were compiled.
    size_t built;
    // Variants that failed.
    size_t failed;
} jitc_report;

// What went wrong. All text is the library's, and is good until the next call of this
// thread that fails, or the thread's end.
typedef struct jitc_error {
    // Bytes of this struct as the library has it.
    size_t size;
    // What the call returned.
    jitc_status status;
    // One line: what was wrong, and where. Never NULL.
    const char *message;
    // What to do about it, lines of text; NULL where there is nothing to say.
    const char *hint;
    // All that the compiler said, of `JITC_STATUS_COMPILE`; else NULL.
    const char *log;
    // The key that was asked for, of `JITC_STATUS_FORBIDDEN`; else NULL.
    const char *key;
} jitc_error;

// A kernel that is a text. All pointers are read during `jitc_source` alone.
typedef struct jitc_source_text {
    // `sizeof(jitc_source_text)`.
    size_t size;
    // CUDA C++, as NVRTC compiles it.
    const char *text;
    // What messages and the cache call it: letters, digits, `_` and `-`. NULL: `source`.
    const char *name;
    // Names of its kernels that are wanted, at least one: `extern "C"` ones, or those
    // that are given to `expressions`.
    const char *const *entries;
    // For each entry its name in C++, `ns::scale<float, 8>`, or NULL for an `extern "C"`
    // one. NULL where all are `extern "C"`.
    const char *const *expressions;
    // How many entries there are.
    size_t entry_count;
    // Macros, each `NAME=VALUE`, or `NAME` for 1.
    const char *const *defines;
    // How many macros there are.
    size_t define_count;
    // Headers, by the names under which they are included.
    const char *const *header_names;
    // Their texts, in the same order.
    const char *const *header_texts;
    // How many headers there are.
    size_t header_count;
    // Header sets of jitc's own: `cuda`, `curand`, `std`.
    const char *const *header_sets;
    // How many header sets there are.
    size_t header_set_count;
    // Compiler options, of those that a family may have.
    const char *const *options;
    // How many options there are.
    size_t option_count;
    // What to compile for, `sm_90a`. NULL: the settings', else what the first GPU is, else
    // the first of the usual ones.
    const char *arch;
    // Threads of a block in x, y and z; all 0: 256, 1, 1.
    uint32_t block[3];
    // Dynamic shared memory, bytes a block.
    uint32_t shared_mem_bytes;
    // Not 0: launches are cooperative.
    int32_t cooperative;
    // 0.
    int32_t reserved;
} jitc_source_text;

// A value for a parameter, or for a launch size, by its name. This struct never grows.
typedef struct jitc_argument {
    // The parameter's name, or the launch size's, as the family declares it.
    const char *name;
    // By `kind`; read during the call.
    const void *pointer;
    // By `kind`.
    uint64_t value;
    // A `jitc_kind`.
    int32_t kind;
    // 0.
    int32_t reserved;
} jitc_argument;

// The `DLTensor` of `DLPack` 1, member for member and byte for byte, for who has not its
// header: a pointer to either is as good.
typedef struct jitc_tensor {
    // Address of its memory on the GPU.
    void *data;
    // 2 of a GPU's memory, 3 of pinned and 13 of managed memory.
    int32_t device_type;
    // Which GPU, in the driver's order.
    int32_t device_id;
    // How many dimensions there are, at most 5.
    int32_t ndim;
    // 0 signed, 1 unsigned, 2 binary floating point, 4 bfloat16, 6 bool.
    uint8_t dtype_code;
    // Bits of an element.
    uint8_t dtype_bits;
    // 1, but 2 of pairs of 4-bit codes.
    uint16_t dtype_lanes;
    // Its dimensions, in elements.
    const int64_t *shape;
    // Its strides, in elements; NULL of a contiguous one. Others are refused.
    const int64_t *strides;
    // Bytes from `data` to its first element.
    uint64_t byte_offset;
} jitc_tensor;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of the library, `0.1.0`: a text that stays.
const char *jitc_version(void);

// Opens an engine. Reads settings and families, and touches neither driver nor compiler.
//
// `options`: settings; NULL leaves all of them to the environment.
// `engine`: where it goes; the caller's, to be given to `jitc_close`.
//
// # Safety
//
// `options` is NULL or of the size that it gives, with texts and lists that can be read.
jitc_status jitc_open(const struct jitc_options *options,
                      struct jitc **engine);

// Closes an engine. Its kernels live on, and may be freed before or after.
//
// `engine`: of `jitc_open`, and not used from here on; NULL does nothing.
//
// # Safety
//
// `engine` is NULL, or an engine that is closed for the first time and that no other
// thread uses.
void jitc_close(struct jitc *engine);

// From now on nothing compiles: what is not in the cache is `JITC_STATUS_FORBIDDEN`.
//
// `engine`: which, with all of its kernels.
//
// # Safety
//
// `engine` is NULL or an engine.
jitc_status jitc_forbid(const struct jitc *engine);

// Finds or compiles variants of a family, several at once, whatever becomes of each. Needs
// no GPU. Where some fail it returns the code of the first that did, which is the last
// error, and the report says how many.
//
// `family`: its name.
// `constants`: `count` texts `name=value`, of which a value may be a list, `split=1,2,4`;
// all combinations are meant. NULL where `count` is 0.
// `archs`: what to compile for, a list like `sm_80,sm_90a`. NULL: the settings', else those of
// the GPUs that are here, else the usual ones.
// `report`: where the numbers go, its size set; NULL where they are of no interest.
//
// # Safety
//
// Pointers are NULL or as said here.
jitc_status jitc_warm(const struct jitc *engine,
                      const char *family,
                      const char *const *constants,
                      size_t count,
                      const char *archs,
                      struct jitc_report *report);

// The last failure of a call of this thread; NULL where none failed yet. A call that
// succeeds leaves it.
const struct jitc_error *jitc_last_error(void);

// A kernel of a family: one variant for one arch. Compiles nothing yet.
//
// `family`: its name.
// `constants`: `count` texts `name=value`; the others have their defaults. NULL where
// `count` is 0.
// `arch`: what to compile for, `sm_90a`. NULL: the settings', else what the first GPU is, else
// the first of the usual ones.
// `kernel`: where it goes; the caller's, to be given to `jitc_free`.
//
// # Safety
//
// Pointers are NULL or as said here.
jitc_status jitc_family(const struct jitc *engine,
                        const char *family,
                        const char *const *constants,
                        size_t count,
                        const char *arch,
                        struct jitc_kernel **kernel);

// A kernel of a text. Compiles nothing yet.
//
// `source`: the text and what goes with it.
// `kernel`: where it goes; the caller's, to be given to `jitc_free`.
//
// # Safety
//
// Pointers are NULL or as said here and in `jitc_source_text`.
jitc_status jitc_source(const struct jitc *engine,
                        const struct jitc_source_text *source,
                        struct jitc_kernel **kernel);

// Frees a kernel, and what it gave out: key and machine code. Where it was launched its
// code stays on the GPU until the context ends, as a launch may still be running.
//
// `kernel`: of `jitc_family` or `jitc_source`, and not used from here on; NULL does nothing.
//
// # Safety
//
// `kernel` is NULL, or a kernel that is freed for the first time and that no other thread
// uses.
void jitc_free(struct jitc_kernel *kernel);

// The key: SHA-256 of all that the compiler sees, 64 hex digits. Compiles nothing.
//
// `key`: where it goes; the kernel's, good until that is freed.
//
// # Safety
//
// Pointers are NULL, a kernel, and room for a pointer.
jitc_status jitc_key(const struct jitc_kernel *kernel,
                     const char **key);

// Finds the kernel's code in the cache, or compiles and keeps it. Needs no GPU. A kernel
// that has its code is left as it is.
//
// `outcome`: where it is said how it came, a text that stays: `hit`, `compatible`, `built`, or
// `built_uncached` where the cache could not keep it. NULL where that is of no interest.
//
// # Safety
//
// Pointers are NULL, a kernel, and room for a pointer.
jitc_status jitc_prepare(const struct jitc_kernel *kernel,
                         const char **outcome);

// The machine code, an ELF image for one arch, found or compiled if need be.
//
// `bytes`: where its address goes; the kernel's, good until that is freed.
// `count`: where the number of bytes goes.
//
// # Safety
//
// Pointers are NULL, a kernel, and room for an answer.
jitc_status jitc_cubin(const struct jitc_kernel *kernel,
                       const void **bytes,
                       size_t *count);

// Loads a kernel on a GPU, found or compiled if need be. Once it is loaded, doing so
// again does nothing. Must not happen while a stream captures:
// `JITC_STATUS_CAPTURING`. The context is the GPU's primary one, as CUDA's runtime has it.
//
// `device`: which GPU, in the driver's order, from 0. A kernel is loaded on one.
//
// # Safety
//
// `kernel` is NULL or a kernel.
jitc_status jitc_load(const struct jitc_kernel *kernel,
                      uint32_t device);

// Launches a loaded kernel with words. Their number is checked; what they mean is not.
//
// `entry`: which of its entry points, in declared order, from 0.
// `grid_x`, `grid_y`, `grid_z`: blocks; threads and shared memory are as declared.
// `stream`: a `CUstream` or `cudaStream_t` of the kernel's GPU; NULL: the default one.
// `words`: the parameters in order, each from the lowest byte of a word of its own;
// one of more than 8 bytes in as many words as it takes. Read during the call.
// `count`: how many words there are.
//
// # Safety
//
// Pointers are NULL or as said here. Memory that the words point at is as large as the
// kernel takes it for, and lives until the stream is done with it.
jitc_status jitc_launch(const struct jitc_kernel *kernel,
                        uint32_t entry,
                        uint32_t grid_x,
                        uint32_t grid_y,
                        uint32_t grid_z,
                        void *stream,
                        const uint64_t *words,
                        size_t count);

// Launches a loaded kernel of a family with values by name, and checks them: type, shape,
// alignment, whose memory it is, and that none is missing or too many. The grid is as
// the family declares it.
//
// `entry`: the entry point's name. NULL: all of them, in declared order, where they take
// the same parameters.
// `arguments`: `count` values, in any order: every parameter but optional ones and those
// that are launch sizes, and every launch size. Read during the call.
// `stream`: a `CUstream` or `cudaStream_t` of the kernel's GPU; NULL: the default one.
//
// # Safety
//
// Pointers are NULL or as said here and in `jitc_argument`. Tensors' memory lives until the
// stream is done with it.
jitc_status jitc_call(const struct jitc_kernel *kernel,
                      const char *entry,
                      const struct jitc_argument *arguments,
                      size_t count,
                      void *stream);

// Makes a loaded kernel of a family a global function of tvm-ffi, which the process has
// loaded: that is looked for, and nothing is linked. The function takes the parameters by
// place, in declared order: tensors, numbers, bytes; then launch sizes that no parameter
// gives; then optional parameters, which may be left out or None. It launches on tvm-ffi's
// current stream of the kernel's GPU, checks what `jitc_call` checks, and raises a `TypeError`,
// a `ValueError` or a `RuntimeError`. It holds the kernel's code: `jitc_free` may come before.
//
// `entry`: the entry point's name. NULL: all of them, as for `jitc_call`.
// `name`: of the function, `mylib.scale`.
// `replace`: not 0: also where tvm-ffi has a function of this name.
//
// # Safety
//
// Pointers are NULL or as said here. What calls the function sees to it that tensors' memory
// lives until the stream is done with it.
jitc_status jitc_register_tvm_ffi(const struct jitc_kernel *kernel,
                                  const char *entry,
                                  const char *name,
                                  int32_t replace);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* JITC_H */
