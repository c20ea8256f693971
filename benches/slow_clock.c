/* The monotonic clock, fifty times slower: callgrind runs a program some fifty times slower than it is, and what goes by the
   clock (weft hands its loop back after a millisecond) must not happen fifty times as often. Loaded with LD_PRELOAD. */

#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SLOWER 50
#define SECOND 1000000000LL

int clock_gettime(clockid_t clock, struct timespec *time) {
    int failed = (int)syscall(SYS_clock_gettime, clock, time);
    if (!failed && clock == CLOCK_MONOTONIC) {
        long long slow = (time->tv_sec * SECOND + time->tv_nsec) / SLOWER;
        time->tv_sec = slow / SECOND;
        time->tv_nsec = slow % SECOND;
    }
    return failed;
}
