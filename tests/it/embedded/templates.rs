&[
    ("include/own/value.cuh", "#pragma once\n#include <value.hpp>\nnamespace own {\n// A quote: \"two\"\n__device__ inline float value() { return lib::two; }\n}  // namespace own\n"),
    ("twice.cu.tera", "#include \"own/value.cuh\"\n\nconstexpr unsigned block = {{ block }};\n\nextern \"C\" __global__ void twice(float* y, const float* x) {\n    const unsigned i = blockIdx.x * block + threadIdx.x;\n    y[i] = own::value() * x[i];\n}\n"),
    ("twice.toml", "summary = \"y = 2 x, by two headers\"\n\n[headers]\nlib = \"vendor/lib\"\n\n[constants.block]\ntype = \"u32\"\nvalues = [128, 256]\ndefault = 256\nhelp = \"Threads of a block\"\n\n[[entries]]\nname = \"twice\"\ngrid = [1, 1, 1]\nblock = \"block\"\n"),
    ("vendor/lib/value.hpp", "#pragma once\nnamespace lib {\nconstexpr float two = 2.0f;\n}  // namespace lib\n"),
]
