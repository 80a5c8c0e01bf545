// A kernel of a string in C++: what jitc gives out is held by unique_ptr, and a failure is
// an exception.
//
//     c++ -std=c++17 hello.cpp $(pkg-config --cflags --libs jitc) -o hello && ./hello
#include <jitc.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>

namespace {

class Error : public std::runtime_error {
public:
    explicit Error(const jitc_error &error)
        : std::runtime_error(std::string(error.message) + (error.hint ? std::string("\n  ") + error.hint : "")),
          status(error.status) {}
    jitc_status status;
};

void check(jitc_status status) {
    if (status != JITC_STATUS_OK) throw Error(*jitc_last_error());
}

struct Free {
    void operator()(jitc *engine) const { jitc_close(engine); }
    void operator()(jitc_kernel *kernel) const { jitc_free(kernel); }
};

using Engine = std::unique_ptr<jitc, Free>;
using Kernel = std::unique_ptr<jitc_kernel, Free>;

Engine open() {
    jitc *engine = nullptr;
    check(jitc_open(nullptr, &engine));
    return Engine(engine);
}

// A template's instance: C++ names it, and `count` is what it is called here.
Kernel count(const Engine &engine, const char *type) {
    const std::string expression = std::string("count<") + type + ">";
    const char *const entries[] = {"count"};
    const char *const expressions[] = {expression.c_str()};
    jitc_source_text source{};
    source.size = sizeof source;
    source.text = "template <typename T> __global__ void count(T n) {\n"
                  "    if (blockIdx.x == 0 && threadIdx.x == 0) printf(\"%d blocks\\n\", (int)n);\n"
                  "}\n";
    source.entries = entries;
    source.expressions = expressions;
    source.entry_count = 1;
    source.block[0] = 32;
    source.block[1] = source.block[2] = 1;
    jitc_kernel *kernel = nullptr;
    check(jitc_source(engine.get(), &source, &kernel));
    return Kernel(kernel);
}

}  // namespace

int main() try {
    const Engine engine = open();
    const Kernel kernel = count(engine, "int");
    const char *key = nullptr, *outcome = nullptr;
    const void *cubin = nullptr;
    std::size_t bytes = 0;
    check(jitc_key(kernel.get(), &key));
    check(jitc_prepare(kernel.get(), &outcome));
    check(jitc_cubin(kernel.get(), &cubin, &bytes));
    std::printf("key %s: %s, %zu bytes of machine code\n", key, outcome, bytes);
    try {
        check(jitc_load(kernel.get(), 0));
    } catch (const Error &error) {
        if (error.status != JITC_STATUS_DEVICE) throw;
        std::printf("not launched: %s\n", error.what());
        return 0;
    }
    const std::uint64_t words[] = {7};
    check(jitc_launch(kernel.get(), 0, 7, 1, 1, nullptr, words, 1));
    std::printf("launched\n");
    return 0;
} catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
