/* The clocks of a program under callgrind, loaded with LD_PRELOAD.

   The monotonic clock goes fifty times slower: callgrind runs a program some fifty times slower than it is, and what goes by the
   clock (weft hands its loop back after a millisecond) must not happen fifty times as often.

   The processor's time is read where the timed part of a program begins and where it ends (programs.py), and nowhere else; it
   is read by a function with a name, at which callgrind can divide its counts (callgrind.py). */

#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SLOWER 50
#define SECOND 1000000000LL

__attribute__((noinline)) long read_processor_time(struct timespec *time) {
    return syscall(SYS_clock_gettime, CLOCK_PROCESS_CPUTIME_ID, time);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    if (clock == CLOCK_PROCESS_CPUTIME_ID) {
        return (int)read_processor_time(time);
    }
    int failed = (int)syscall(SYS_clock_gettime, clock, time);
    if (!failed && clock == CLOCK_MONOTONIC) {
        long long slow = (time->tv_sec * SECOND + time->tv_nsec) / SLOWER;
        time->tv_sec = slow / SECOND;
        time->tv_nsec = slow % SECOND;
    }
    return failed;
}
