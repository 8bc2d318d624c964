/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bench.h"

#include <err.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/sem.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char root[PATH_MAX];
static pid_t root_maker;
static int sems[8], n_sems;

void bench_check(int ok, const char *what)
{
    if (!ok)
        err(1, "%s", what);
}

void bench_must(int code, const char *what)
{
    if (code < 0)
        errx(1, "%s: %s", what, flk_error_detail());
}

int64_t bench_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void bench_sleep(int64_t ns)
{
    nanosleep(&(struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000}, NULL);
}

static int rising(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(double *values, size_t count)
{
    qsort(values, count, sizeof *values, rising);
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

void bench_print(const char *what, const char *unit, double ours, double peer, double goal)
{
    double ratio = ours / peer;
    printf("%s: %.2f %s, peer %.2f: %.2fx", what, ours, unit, peer, ratio);
    if (goal > 0)
        printf(" (goal <= %.2fx: %s)", goal, ratio <= goal ? "met" : "MISSED");
    if (goal < 0)
        printf(" (goal >= %.2fx: %s)", -goal, ratio >= -goal ? "met" : "MISSED");
    printf("\n");
    fflush(stdout);
}

static int delete_one(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status, (void)type, (void)walk;
    return remove(path);
}

static void clean_up(void)
{
    if (getpid() != root_maker)
        return;
    if (root[0])
        nftw(root, delete_one, 16, FTW_DEPTH | FTW_PHYS);
    while (n_sems > 0)
        semctl(sems[--n_sems], 0, IPC_RMID);
}

static void clean_up_at_exit(void)
{
    if (root_maker)
        return;
    root_maker = getpid();
    atexit(clean_up);
}

const char *bench_root(void)
{
    const char *parent = getenv("BENCH_DIR");
    snprintf(root, sizeof root, "%s/flockctl-bench.XXXXXX", parent && *parent ? parent : "/dev/shm");
    bench_check(mkdtemp(root) != NULL, root);
    clean_up_at_exit();
    setenv("FLOCKCTL_DIR", root, 1);
    setenv("FLOCKCTL_CONFIG", "/dev/null", 1);
    return root;
}

void *bench_share(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    bench_check(memory != MAP_FAILED, "mmap");
    return memory;
}

pid_t bench_fork(void (*run)(void *), void *data)
{
    pid_t pid = fork();
    bench_check(pid >= 0, "fork");
    if (pid == 0) {
        run(data);
        _exit(0);
    }
    return pid;
}

void bench_reap(size_t count)
{
    while (count-- > 0) {
        int status;
        bench_check(wait(&status) > 0, "wait");
        if (status != 0)
            errx(1, "a child ended with status %d", status);
    }
}

/* ---- the peer ---- */

int bench_sem(unsigned value)
{
    int sem = semget(IPC_PRIVATE, 1, 0600);
    bench_check(sem >= 0, "semget");
    clean_up_at_exit();
    sems[n_sems++] = sem;
    bench_check(semctl(sem, 0, SETVAL, (int)value) == 0, "semctl");
    return sem;
}

static void change_sem(int sem, short by)
{
    bench_check(semop(sem, &(struct sembuf){.sem_op = by, .sem_flg = SEM_UNDO}, 1) == 0, "semop");
}

void bench_sem_take(int sem)
{
    change_sem(sem, -1);
}

void bench_sem_drop(int sem)
{
    change_sem(sem, 1);
}

/* ---- who waits for whom ---- */

void bench_gate_open(struct bench_gate *gate, uint32_t value)
{
    gate->value = value;
    syscall(SYS_futex, &gate->value, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void bench_gate_wait(struct bench_gate *gate, uint32_t value)
{
    for (uint32_t seen; (seen = gate->value) < value;)
        syscall(SYS_futex, &gate->value, FUTEX_WAIT, seen, NULL, NULL, 0);
}

uint64_t bench_tickets(const char *name)
{
    char path[PATH_MAX], header[128] = "";
    snprintf(path, sizeof path, "%.3000s/rows/%.200s/latch", getenv("FLOCKCTL_DIR"), name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bench_check(fd >= 0 && read(fd, header, sizeof header - 1) > 0, path);
    close(fd);
    const char *at = strstr(header, "number=");
    return at ? strtoull(at + 7, NULL, 10) : 0;
}

void bench_wait_ticket(const char *name, uint64_t number)
{
    while (bench_tickets(name) < number)
        bench_sleep(20000);
}
