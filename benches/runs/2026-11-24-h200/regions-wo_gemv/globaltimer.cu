#include <cstdio>
#include <algorithm>
#include <vector>
__global__ void probe(unsigned long long* t, int n) {
    for (int i = 0; i < n; ++i) asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t[i])::"memory");
}
__global__ void cost(long long* out) {
    unsigned long long t, x = 0;
    long long a = clock64();
    for (int i = 0; i < 1000; ++i) { asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t)::"memory"); x += t; }
    long long b = clock64();
    for (int i = 0; i < 1000; ++i) { asm volatile("mov.u64 %0, %%clock64;" : "=l"(t)::"memory"); x += t; }
    long long c = clock64();
    out[0] = b - a; out[1] = c - b; out[2] = (long long)x;
}
int main() {
    const int n = 1 << 16;
    unsigned long long* d; long long* e;
    cudaMalloc(&d, n * 8); cudaMalloc(&e, 24);
    for (int r = 0; r < 2; ++r) { probe<<<1, 1>>>(d, n); cost<<<1, 1>>>(e); }
    std::vector<unsigned long long> t(n); long long c[3];
    if (cudaMemcpy(t.data(), d, n * 8, cudaMemcpyDeviceToHost) || cudaMemcpy(c, e, 24, cudaMemcpyDeviceToHost)) return 1;
    std::vector<unsigned long long> steps; unsigned long long g = 0;
    for (int i = 1; i < n; ++i) if (t[i] != t[i - 1]) { unsigned long long s = t[i] - t[i - 1]; steps.push_back(s); g = std::__gcd(g, s); }
    std::sort(steps.begin(), steps.end());
    printf("globaltimer: %d reads over %llu ns, %zu steps: smallest %llu, median %llu, largest %llu ns; all multiples of %llu ns\n",
           n, t[n - 1] - t[0], steps.size(), steps[0], steps[steps.size() / 2], steps.back(), g);
    printf("a read costs a thread: globaltimer %.1f cycles, clock64 %.1f cycles\n", c[0] / 1000.0, c[1] / 1000.0);
}
