/* The machine's floor for thread to thread: two bare POSIX semaphores handed between two threads.
 *
 *   floor_semaphores [--seconds S] thread_ping_pong:N     prints what benches/child.py prints
 *
 * No lock, no queue, no interpreter: two futex wakes and two switches a round trip. */
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static sem_t there, back;
static long n, value;

static int64_t read_clock(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static int64_t now(void) { return read_clock(CLOCK_MONOTONIC); }

static void *echo(void *unused) {
    for (long i = 0; i < n; i++) {
        sem_wait(&there);
        value += 1;
        sem_post(&back);
    }
    return unused;
}

/* One execution: nanoseconds per hand-off, of the processor's time in `cpu`; the round trips' times in `samples`. */
static double ping_pong(int64_t *samples, double *cpu) {
    pthread_t thread;
    int64_t total = 0, used = read_clock(CLOCK_PROCESS_CPUTIME_ID), began = now();
    pthread_create(&thread, NULL, echo, NULL);
    for (long i = 0; i < n; i++) {
        int64_t sent = now();
        value = i;
        sem_post(&there);
        sem_wait(&back);
        total += value;
        samples[i] = now() - sent;
    }
    pthread_join(thread, NULL);
    int64_t elapsed = now() - began;
    *cpu = (double)(read_clock(CLOCK_PROCESS_CPUTIME_ID) - used) / (2.0 * n);
    if (total != (int64_t)n * (n + 1) / 2) {
        puts("{\"program\": \"thread_ping_pong\", \"error\": \"wrong answer\"}");
        exit(0);
    }
    return (double)elapsed / (2.0 * n);
}

static int by_value(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    double seconds = 0, times[20], cpus[20];
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--seconds") && i + 1 < argc) seconds = atof(argv[++i]);
        else if (!strncmp(argv[i], "thread_ping_pong:", 17)) n = atol(argv[i] + 17);
    }
    if (n <= 0) { fprintf(stderr, "usage: %s [--seconds S] thread_ping_pong:N\n", argv[0]); return 2; }
    sem_init(&there, 0, 0);
    sem_init(&back, 0, 0);
    int64_t *samples = malloc(sizeof *samples * (size_t)n * 20);
    if (!samples) return 1;
    ping_pong(samples, cpus); /* warm up */
    int64_t began = now();
    int repeats = 0;
    while (!repeats || (now() - began < seconds * 1e9 && repeats < 20)) {
        times[repeats] = ping_pong(samples + (size_t)n * repeats, &cpus[repeats]);
        repeats++;
    }
    size_t count = (size_t)n * repeats;
    qsort(samples, count, sizeof *samples, by_value);
    printf("{\"program\": \"thread_ping_pong\", \"ns\": [");
    for (int i = 0; i < repeats; i++) printf("%s%.1f", i ? ", " : "", times[i]);
    printf("], \"cpu\": [");
    for (int i = 0; i < repeats; i++) printf("%s%.1f", i ? ", " : "", cpus[i]);
    printf("], \"percentiles\": [%lld, %lld, %lld], \"p90\": %lld}\n", (long long)samples[count / 2],
           (long long)samples[(size_t)(count * 0.99)], (long long)samples[(size_t)(count * 0.999)],
           (long long)samples[(size_t)(count * 0.9)]);
    return 0;
}
