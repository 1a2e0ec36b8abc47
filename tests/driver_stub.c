/* The calls of the CUDA driver and of NVML that are made, for one RTX 4090: it shows that arguments and types are passed
   as the real headers declare them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int cuInit(unsigned flags) { return getenv("STUB_CUINIT") ? atoi(getenv("STUB_CUINIT")) : flags ? 1 : 0; }
int cuGetErrorString(int code, const char **text) { *text = "stub error"; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal + 7; return 0; }
int cuDriverGetVersion(int *version) { *version = 13020; return 0; }
int cuDeviceGetUuid_v2(char *uuid, int device) {
    for (int i = 0; i < 16; i++) uuid[i] = (char)(i * 16 + device);
    return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    if (device != 7) return 101;
    switch (attribute) {
        case 14: *value = 512; return 0;
        case 16: *value = 128; return 0;
        case 18: *value = 0; return 0;
        case 32: *value = 0; return 0;
        case 37: *value = 384; return 0;
        case 38: *value = 75497472; return 0;
        case 75: *value = 8; return 0;
        case 76: *value = 9; return 0;
        case 81: *value = 102400; return 0;
        case 97: *value = 101376; return 0;
        case 111: *value = 1024; return 0;
        default: return 1;
    }
}

#define UUID "GPU-07172737-4757-6777-8797-a7b7c7d7e7f7"
static int gpu;
int nvmlInitWithFlags(unsigned flags) { return getenv("STUB_NVML") ? atoi(getenv("STUB_NVML")) : 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return "Driver/library version mismatch"; }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    *handle = &gpu;
    return strcmp(uuid, UUID) ? 6 : 0; /* 6: not found */
}
int nvmlDeviceGetName(void *handle, char *name, unsigned length) {
    snprintf(name, length, "NVIDIA GeForce RTX 4090");
    return handle != &gpu;
}
int nvmlDeviceGetUUID(void *handle, char *uuid, unsigned length) { snprintf(uuid, length, UUID); return handle != &gpu; }
int nvmlDeviceGetIndex(void *handle, unsigned *index) { *index = 2; return handle != &gpu; }
int nvmlDeviceGetMemoryInfo(void *handle, unsigned long long *total_free_used) {
    total_free_used[0] = 24564ull << 20;
    total_free_used[1] = 20000ull << 20;
    total_free_used[2] = 4564ull << 20;
    return handle != &gpu;
}
int nvmlSystemGetDriverVersion(char *version, unsigned length) { snprintf(version, length, "580.65.06"); return 0; }

/* What a session of an engine needs of CUDA: memory of the host stands for the GPU's, and streams do all at once. */
static long live, allocated;
static int retained, streams;
static __thread int current; /* a context is a thread's */
static char the_context, the_stream;
long stub_live(void) { return live + retained + streams; } /* what has not been given back */
long stub_allocations(void) { return allocated; }
int cuDevicePrimaryCtxRetain(void **context, int device) {
    *context = &the_context;
    retained++;
    return device == 7 ? 0 : 101;
}
int cuDevicePrimaryCtxRelease_v2(int device) { retained--; return device == 7 ? 0 : 101; }
int cuCtxSetCurrent(void *context) { current = context == &the_context; return current ? 0 : 201; }
int cuStreamCreate(void **stream, unsigned flags) {
    *stream = &the_stream;
    streams++;
    return flags || !current;
}
int cuStreamDestroy_v2(void *stream) { streams--; return stream != &the_stream; }
int cuStreamSynchronize(void *stream) {
    if (getenv("STUB_KERNEL")) return atoi(getenv("STUB_KERNEL"));
    return stream != &the_stream;
}
int cuMemAlloc_v2(unsigned long long *address, size_t size) {
    if (getenv("STUB_MEMORY") && size > (size_t)atol(getenv("STUB_MEMORY"))) return 2; /* out of memory */
    if (!size || !current) return 1;
    *address = (unsigned long long)(size_t)malloc(size);
    live++;
    allocated++;
    return 0;
}
int cuMemFree_v2(unsigned long long address) { free((void *)(size_t)address); live--; return address == 0; }
static long uploaded, downloaded;
long stub_uploaded(void) { return uploaded; } /* bytes */
long stub_downloaded(void) { return downloaded; }
int cuMemcpyDtoDAsync_v2(unsigned long long to, unsigned long long from, size_t size, void *stream) {
    memcpy((void *)(size_t)to, (void *)(size_t)from, size);
    return stream != &the_stream || !current;
}
int cuMemcpyHtoDAsync_v2(unsigned long long to, const void *from, size_t size, void *stream) {
    memcpy((void *)(size_t)to, from, size);
    uploaded += size;
    return stream != &the_stream || !current;
}
int cuMemcpyDtoHAsync_v2(void *to, unsigned long long from, size_t size, void *stream) {
    memcpy(to, (void *)(size_t)from, size);
    downloaded += size;
    return stream != &the_stream || !current;
}
