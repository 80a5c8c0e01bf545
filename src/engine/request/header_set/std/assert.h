// `assert` of a kernel, which stops it. As in C, it can be included again.
#undef assert
#ifdef NDEBUG
#define assert(condition) (static_cast<void>(0))
#else
extern "C" __device__ void __assertfail(const char* message, const char* file, unsigned int line,
                                        const char* function, decltype(sizeof(0)) char_size);
#define assert(condition)                                                                                    \
    ((condition) ? static_cast<void>(0) : __assertfail(#condition, __FILE__, __LINE__, __func__, sizeof(char)))
#endif
