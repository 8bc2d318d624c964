/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* flockctl: locks and semaphores shared by the processes of one user on one machine. To be read from here to the
 * end; nothing else is needed. C99 and later, C++11 and later (flockctl.hpp has the same as classes).
 *
 * THE MODEL
 *   A name stands for a row of slots: a row of one is a lock, a row of N a semaphore. A request asks for one or several
 *   slots of one or several names; what it becomes is a hold. Who can't be served at once stands in the row's queue:
 *   first come, first served, whatever each asks for. The kernel holds every lock (flock(2) on a FIFO that stays open),
 *   so a holder that is killed has released it at that moment; there is no daemon, no signal, no thread and no polling.
 *   A run is a command and all that it starts, looked after until nothing of it is left. An output is built once, by one
 *   of all that need it. State is what is to be undone when its owner is gone. The tool, flockctl(1), does all of that
 *   with the same locks.
 *
 * CALLING SEQUENCE
 *   flk_acquire() or flk_acquire_many(), work, flk_hold_release(). In a program with a loop of its own:
 *   flk_request_start(), poll flk_request_fd(), flk_request_step() whenever that is readable, flk_request_cancel() at
 *   the end. A command: flk_run(). An output: flk_once(). Nothing has to be set up before, or taken down after.
 *
 * EXAMPLE
 *   #include <err.h>
 *   #include <flockctl.h>
 *   #include <stdio.h>
 *
 *   int main(void)
 *   {
 *       struct flk_hold *hold;
 *       if (flk_acquire("podman", 0, 30000, &hold) < 0)       // waits at most 30 s
 *           errx(1, "%s", flk_error_detail());                // says what, why, and what to do
 *       puts("I have it");
 *       flk_hold_release(hold);
 *   }
 *
 *   cc test.c $(pkg-config --cflags --libs flockctl)
 *
 * RESULTS
 *   Every int result is 0 (or a count >= 0) or a negative errno. Results go to the last parameter, written only on
 *   success. Only -EBUSY (asked not to wait), -ETIMEDOUT (deadline passed) and -ECANCELED (cancel descriptor readable)
 *   mean that somebody else has it, and -EDEADLK that waiting would never end; everything else is an error. The lock
 *   was not acquired. Errors that any call may give, beside those that it names: -EPERM or -EACCES (lock directory not
 *   safe, or not ours), -EROFS, -ENOSPC, -EDQUOT, -EMFILE, -ENFILE, -ENOMEM, -EINVAL (a name or number that can't be),
 *   -EBADMSG (a damaged file), -EPROTONOSUPPORT (directory of another release). flk_error_detail() has the sentence.
 *   The library never prints, exits, or changes signals, working directory or umask.
 *
 * SPECIFICATIONS
 *   In the structs that callers fill, zero is the default everywhere, and what is reserved must be 0 (else -EINVAL), so
 *   that an older library refuses what it doesn't know: begin with `= {0}` or designated initializers. What the library
 *   fills only ever grows at its end.
 *
 * THREADS
 *   Any thread may call anything. One object (hold, request, run) is used by one thread at a time and may be handed to
 *   another. A blocking call that could only be served once its own thread has released something gives -EDEADLK at
 *   once (trying once: -EBUSY). A hold counts as that of the thread which acquired it; handing it to another thread
 *   doesn't change that.
 *
 * COST
 *   No threads, and no signals. A hold has a descriptor for each slot; a wait has two more while it lasts, and two again
 *   with flk_request_fd(). A name that was used keeps two or three, and one for each slot of a row of several, so that
 *   its next use is quick: of those that nobody uses, the longest idle are closed when all have more than a quarter of
 *   the soft limit of open files, and all when the limit is reached. flk_root_set(NULL) closes them. Acquiring takes less
 *   than 12 KiB of stack.
 *
 * DEADLOCKS
 *   A wait that would close a circle of processes (or threads) that wait for each other isn't begun: -EDEADLK, and the
 *   sentence names all of them. Only that request fails; releasing what is held lets the others go on. Of a request
 *   that is stepped only the names that it has got already count, since its program can release others meanwhile.
 *
 * NESTING
 *   A program that runs under `flockctl acquire NAME -- ...`, or that was given a hold by flk_run() or by
 *   flk_hold_inherit() and flk_hold_environ(), and asks for NAME, draws from that hold, in turn with all others below
 *   it; the numbers of its slots are among those of that hold. More than that one has, or exclusively what that one
 *   shares: -EDEADLK.
 *
 * CAVEATS
 *   fork()         A child has none of its parent's holds, requests, runs and descriptors, whichever thread forked and
 *                  whatever others did just then. It may use the library at once. Releasing a hold of which it has a
 *                  copy frees memory only. Not in a signal handler, where _Fork() is the call. The handlers call those
 *                  of liburcu-bp: a program that uses that library itself must not do so for the same fork.
 *   vfork()        Call nothing of the library between it and exec or _exit: the memory is the parent's.
 *   posix_spawn()  and system(), popen(): nothing to heed. What they start has none of the descriptors, which are
 *                  close-on-exec.
 *   clone3()       and other raw clones run no fork handlers. A child with memory of its own has copies of the
 *                  descriptors until its exec, its end or its first call here, which notices. A lock is held as long as
 *                  any process has its descriptor, unless the parent releases it, which unlocks for all (LOCK_UN
 *                  through any copy). With CLONE_VM: as vfork().
 *   exec           ends every hold of the process, as its end does. To hand one on: flk_run(), or, in a program that
 *                  forks by itself, flk_hold_inherit() and flk_hold_environ().
 *   _exit()        and exit(), a signal, an end of main(): the kernel releases what is held. It wasn't released by its
 *                  holder, so the next one is told that it was abandoned.
 *   pthread_cancel()
 *                  ends a blocking call only while it sleeps, and leaves no slot, descriptor or place in a queue. A C++
 *                  exception that leaves a callback does the same; a longjmp() doesn't.
 *   dlclose()      doesn't unload the library, and what is held stays held: release first.
 *   SIGSTOP        A waiter that is stopped is passed over by those behind it after one to two seconds, also the one
 *                  whose turn it is; when it goes on, it queues again. A stopped holder keeps its lock. A process that
 *                  is stopped in the few microseconds in which it has a row's latch delays the others until it goes on;
 *                  their deadlines hold.
 *   network file systems have another flock(2), and FIFOs there don't connect machines. The lock directory must be
 *                  local.
 *   containers     share locks with the host and each other when the lock directory is mounted into them (and
 *                  FLOCKCTL_DIR says where) and their user owns it there. What they tell of themselves has pids of
 *                  their own namespace: flk_holder.foreign. */
#ifndef FLOCKCTL_H
#define FLOCKCTL_H

#include <limits.h> /* UINT_MAX */
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h> /* struct rusage */
#include <sys/types.h>

#define FLK_MUST_CHECK __attribute__((warn_unused_result))
#define FLK_NONNULL(...) __attribute__((nonnull(__VA_ARGS__)))

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)
#ifdef __cplusplus
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow" /* flk_run() and struct flk_run */
#endif

#define FLK_FOREVER INT64_C(-1)   /* timeout_ms: no deadline; 0 tries once */
#define FLK_ALL UINT_MAX          /* flk_want.count: every slot of the row */
#define FLK_SLOTS_MAX 4096u       /* slots of a row */
#define FLK_NAME_MAX 200          /* bytes of a name, of [A-Za-z0-9._@+-], the first neither '.' nor '-' */
#define FLK_VALUE_MAX 255         /* bytes of a pool's value: printable ASCII, no space, no comma */
#define FLK_CHECK_MAX 1023        /* bytes of its check */
#define FLK_ID_SIZE 32            /* bytes of any id, [a-z][a-z0-9]*, with its NUL */

const char *flk_version(void); /* of the library, "MAJOR.MINOR.PATCH". Since 0.1. */

/* A static phrase for a negative result. Since 0.1. */
const char *flk_error_string(int code);
/* What went wrong in this thread's last failed call: the thing, the reason and what to do. Valid until its next failure; not
 * to be freed. Since 0.1. */
const char *flk_error_detail(void);

/* A name that is given once on this machine, for ever: prefix (NULL: "f"), then the time, a random number and a counter, in all
 * 24 characters of [a-z0-9]. It is good in names of containers, databases, hosts and files. size: FLK_ID_SIZE. No lock directory is
 * needed, and nothing kept. -EINVAL: the prefix isn't [a-z][a-z0-9]{0,6}, or the room is too small. Since 0.1. */
int flk_id(const char *prefix, char *id, size_t size) FLK_MUST_CHECK FLK_NONNULL(2);

/* ---- the lock directory and its rows ---- */

/* Chooses the lock directory of this process: dir, made (mode 0700) when it isn't there; NULL chooses again by the rules of
 * flockctl(7). -EBUSY while this process holds or waits. Since 0.1. */
int flk_root_set(const char *dir) FLK_MUST_CHECK;
/* The absolute path of the lock directory, chosen, made and checked on first use. The caller frees it. Since 0.1. */
int flk_root_get(char **path) FLK_MUST_CHECK FLK_NONNULL(1);
/* A text of several lines: the choice, why, and the other candidates. The caller frees it. Since 0.1. */
int flk_root_describe(char **text) FLK_MUST_CHECK FLK_NONNULL(1);
/* A sentence that the user should see about the choice of directory, or NULL; static. Since 0.1. */
const char *flk_root_warning(void);

/* Makes sure that name is a row of slots (1 to FLK_SLOTS_MAX) without values; makes it when it isn't there. -EUSERS: it has
 * another number, or it is a pool.
 * Since 0.1. */
int flk_row_define(const char *name, unsigned slots) FLK_MUST_CHECK FLK_NONNULL(1);

/* A pool is a row whose slots stand for something: ports, addresses, devices, one value each. Whoever gets a slot gets its value
 * (flk_hold_value()), and nobody else has that meanwhile. The values never change; to have others, remove the row.
 *
 * With a check, a free slot whose value is in use by somebody outside of the pool is passed over, and looked at again after a second:
 *   "tcp-port"   a port, as PORT, ADDRESS:PORT or [ADDRESS]:PORT, that can't be bound and listened on (the program needs no right to
 *                anything else than that)
 *   "udp-port"   the same for UDP
 *   "path-free"  an absolute path that a process has open, where that may be seen; a block device that the kernel uses (mounted, a
 *                connected nbd); a socket on which somebody listens. A path that isn't there is free
 *   other        a command, run as by flk_run() with FLOCKCTL_VALUE, FLOCKCTL_SLOT and FLOCKCTL_NAME by /bin/sh -c, without input and output: exit
 *                status 0, it is usable. In use: any other, or not done in 10 s
 * Requests are served in turn, so those behind one whose command looks at a value wait for that. One that doesn't wait for others
 * (timeout_ms 0) does wait for its command. A pool with a check can't be shared. Additional errors of a request: what
 * flk_run_start() gives; -ENOEXEC: the command can't be run; -EACCES: the port may not be bound. */
enum flk_pool_flags { FLK_POOL_SPREAD = 1 << 0 }; /* hand out the free one that was unused longest, not the lowest */
struct flk_pool {
    const char *const *values; /* of slot 0, 1, ...: all different */
    size_t n_values;           /* 1 to FLK_SLOTS_MAX */
    const char *check;         /* "tcp-port", "udp-port", "path-free" or a command; NULL: none */
    unsigned flags;            /* enum flk_pool_flags */
    unsigned reserved0;
    uint64_t reserved[4]; /* 0, else -EINVAL */
};
/* Makes sure that name is that pool; makes it when it isn't there. -EUSERS: it has other values, check or flags, or none.
 * Since 0.1. */
int flk_pool_define(const char *name, const struct flk_pool *pool) FLK_MUST_CHECK FLK_NONNULL(1, 2);

/* Waits for all slots, then gives the row another number of them; those who wait queue again, in no particular order. -ENOENT:
 * not defined. -EUSERS: it is a pool. -EBUSY, -ETIMEDOUT as flk_acquire(). Since 0.1. */
int flk_row_resize(const char *name, unsigned slots, int64_t timeout_ms) FLK_MUST_CHECK FLK_NONNULL(1);
/* Waits for all slots, then deletes the row. A name that isn't there is fine. Those who wait go on with a new row of that
 * name. Since 0.1. */
int flk_row_remove(const char *name, int64_t timeout_ms) FLK_MUST_CHECK FLK_NONNULL(1);
/* The row's directory (the caller frees it) and its number of slots, for those who join in by hand; makes the row when it
 * isn't there (slots: as in struct flk_want). Since 0.1. */
int flk_row_path(const char *name, unsigned slots, unsigned *n_slots, char **path) FLK_MUST_CHECK FLK_NONNULL(1, 3, 4);

/* ---- acquire ---- */

enum flk_want_flags { FLK_SHARED = 1 << 0 }; /* with other shared holders; rows of one only */

struct flk_want {
    const char *name;
    unsigned count; /* 0: one; FLK_ALL */
    unsigned slots; /* 0: as the row is, and a new one as the configuration says or else of one; other: -EUSERS if the row differs */
    unsigned flags; /* enum flk_want_flags */
    unsigned reserved0;
    const struct flk_pool *pool; /* NULL: as the row is; else -EUSERS if it has other values, or another check where one is given */
    uint64_t reserved[1];        /* 0, else -EINVAL */
};

enum flk_foreign {
    FLK_FOREIGN_PID = 1 << 0, /* its pid is a number of another pid namespace, and means nothing in ours */
    FLK_FOREIGN_TIME = 1 << 1 /* another time namespace: its start_time may not compare with others */
};

/* A process that holds or waits, as it wrote down itself or as the kernel shows it: for people, never proof of anything. Strings
 * live as long as the object or the callback that they were got from. */
struct flk_holder {
    pid_t pid;           /* 0: a process that we may not see (another user's, hidden by hidepid, or not dumpable) */
    int acquirer;        /* 1: the process that acquired; 0: one that merely has the descriptor */
    int shared;
    int stopped;         /* by SIGSTOP, Ctrl-Z or a debugger */
    uint64_t start_time; /* clock ticks since boot, proc_pid_stat(5) field 22 */
    int64_t since_ms;    /* since the epoch; 0: not known */
    const char *command, *label, *id; /* "" when not known */
    unsigned foreign;                 /* enum flk_foreign */
    uint64_t pid_namespace;           /* its inode; 0: not known */
};

/* What a wait looks like at one moment. */
struct flk_waiting {
    const char *name;
    const struct flk_holder *holder; /* one that has it, the first we found; NULL: none known */
    unsigned slots, holders;         /* of the row; how many of them have a known holder */
    const struct flk_holder *first;  /* first in line; NULL: we are */
    unsigned ahead;                  /* how many are before us in line */
    int64_t waited_ms;
    const struct flk_holder *acquirer; /* who acquired what the holder merely keeps, and is gone; NULL: the holder did */
    const char *holder_wants;          /* what the holder, or a process that it has started, waits for itself; NULL */
    const struct flk_holder *wanting;  /* that process; NULL */
    const char *blocked;               /* of a pool: a value that its check has found in use by others; NULL: none */
    unsigned n_blocked;                /* how many values there are of these */
};

struct flk_options {
    const char *label;    /* shown to those who wait; NULL: none */
    const char *command;  /* the same; NULL: this process's command line */
    const int *cancel_fd; /* readable: ends the wait with -ECANCELED. NULL: none. Must stay open during the wait. */
    /* Called without any lock held from the waiting call after 1 s, 10 s and then each minute. */
    void (*waiting)(const struct flk_waiting *waiting, void *data);
    void *data;
    uint64_t reserved[4]; /* 0, else -EINVAL */
};

struct flk_hold;
struct flk_request;

/* Acquires one slot of name (flags: FLK_SHARED), for flk_hold_release(). -EBUSY, -ETIMEDOUT, -EDEADLK. Since 0.1. */
int flk_acquire(const char *name, unsigned flags, int64_t timeout_ms, struct flk_hold **hold) FLK_MUST_CHECK FLK_NONNULL(1, 4);
/* Acquires all wants as one hold. Several names are taken in one fixed order, whatever their order here, so that two such
 * requests can't wait for each other; of one row, all that is wanted is taken in one step. options may be NULL.
 * What dead owners of these names have left (flk_state_add()) is cleaned up then, before it returns; timeout_ms doesn't bound that.
 * -EINVAL: a name twice, FLK_SHARED with count or row other than one, a count larger than the row. -ENOENT: several slots of a
 * name that isn't defined. -EUSERS, -EBUSY, -ETIMEDOUT, -ECANCELED, -EDEADLK. Since 0.1. */
int flk_acquire_many(const struct flk_want *wants, size_t n_wants, const struct flk_options *options, int64_t timeout_ms,
                     struct flk_hold **hold) FLK_MUST_CHECK FLK_NONNULL(1, 5);

/* The same without blocking. wants and options are copied (not what data and cancel_fd point to; the number at cancel_fd is
 * read now). The request's place in the queue is taken by the first step. End it with flk_request_cancel(). Since 0.1. */
int flk_request_start(const struct flk_want *wants, size_t n_wants, const struct flk_options *options, int64_t timeout_ms,
                      struct flk_request **request) FLK_MUST_CHECK FLK_NONNULL(1, 5);
/* A descriptor to poll for POLLIN, the same for the request's whole life; readable: call flk_request_step(). It stays the
 * request's own. Negative: -EMFILE and the like. Since 0.1. */
int flk_request_fd(struct flk_request *request) FLK_MUST_CHECK FLK_NONNULL(1);
/* Goes as far as it can without sleeping (a latch held by a stopped process is waited for up to 10 ms). 0: *hold is the
 * caller's. -EAGAIN: not yet. Other: the request has failed. Since 0.1. */
int flk_request_step(struct flk_request *request, struct flk_hold **hold) FLK_MUST_CHECK FLK_NONNULL(1, 2);
/* Ends and frees it, whatever step said; a hold already got is not touched. NULL is fine. Since 0.1. */
void flk_request_cancel(struct flk_request *request);

/* ---- hold: index counts the names in the order asked for; strings and arrays live as long as the hold ---- */

/* Releases and frees. In a forked child it frees, and closes what that has inherited of it. NULL is fine. Since 0.1. */
void flk_hold_release(struct flk_hold *hold);
/* Releases as if it had never been acquired: when the predecessor died holding, the next holder is told so too. NULL is fine.
 * Since 0.1. */
void flk_hold_decline(struct flk_hold *hold);
const char *flk_hold_id(const struct flk_hold *hold) FLK_NONNULL(1); /* unique on this machine; since 0.1 */
size_t flk_hold_names(const struct flk_hold *hold) FLK_NONNULL(1);   /* how many; since 0.1 */
/* NULL: there aren't so many. Since 0.1. */
const char *flk_hold_name(const struct flk_hold *hold, size_t index) FLK_NONNULL(1);
/* How many slots of that name, and their numbers, rising; 0, and *slots is as it was: there isn't such a name. Since 0.1. */
size_t flk_hold_slots(const struct flk_hold *hold, size_t index, const unsigned **slots) FLK_NONNULL(1, 3);
/* The value of the slot with that index in flk_hold_slots(); NULL: it has none. Since 0.1. */
const char *flk_hold_value(const struct flk_hold *hold, size_t index, size_t slot_index) FLK_NONNULL(1);
/* 1: an exclusive holder of one of the slots before us died without releasing it. Since 0.1. */
int flk_hold_abandoned(const struct flk_hold *hold) FLK_NONNULL(1);
const struct flk_holder *flk_hold_predecessor(const struct flk_hold *hold) FLK_NONNULL(1); /* NULL: not abandoned; since 0.1 */
int64_t flk_hold_waited_ms(const struct flk_hold *hold) FLK_NONNULL(1);                    /* since 0.1 */
/* on: what this process forks or executes from now on has the slots too, at descriptor numbers of 200 and above where the
 * limit allows; they stay taken while any such process has them, and releasing only closes ours. off: no longer inherited by
 * those made later. Since 0.1. */
int flk_hold_inherit(struct flk_hold *hold, int on) FLK_MUST_CHECK FLK_NONNULL(1);
/* environ with FLOCKCTL_NAME, _ID, _SLOT, _SLOTS, _SLOTS_1..., _VALUE, _VALUES, _VALUES_1..., _ABANDONED, _WAITED_MS as flockctl(1) describes, _DIR when the
 * lock directory was chosen by flk_root_set() or that variable, and, once flk_hold_inherit() is on, _HELD, by which what runs with
 * it may draw from this hold. One free(). Since 0.1. */
int flk_hold_environ(const struct flk_hold *hold, char ***envp) FLK_MUST_CHECK FLK_NONNULL(1, 2);
/* Calls each for every hold of this process, the oldest first, until it returns something other than 0, which is then the result.
 * No lock is held meanwhile: each may call anything, and leave by an exception. A hold that is released meanwhile, by each or
 * by another thread, can still be looked at until each returns. -ENOMEM. Since 0.1. */
int flk_hold_foreach(int (*each)(const struct flk_hold *hold, void *data), void *data) FLK_NONNULL(1);
/* Does this process hold name: 0 no, 1 shared, 2 exclusively. Wait-free. For assertions. Since 0.1. */
int flk_held(const char *name) FLK_NONNULL(1);

/* ---- build once ---- */

enum flk_once_flags {
    FLK_ONCE_FORCE = 1 << 0, /* build, however current it is */
    FLK_ONCE_RETRY = 1 << 1  /* build, also when the build that was waited for has failed */
};

struct flk_once_spec {
    const char *output; /* the path of a file or directory; its directory must be there */
    const char *key;    /* current is what was built for this key; NULL: what is there */
    int64_t max_age_ms; /* and not longer ago than this; 0: whenever */
    /* Makes path, a file or a directory: a private one beside output, with the same name, of which nothing is there yet. 0: it is made.
     * Other: it failed, which is what flk_once() returns, to all who waited for it as well; a negative errno or a number of
     * its own. Called by the thread that called flk_once(), with the output's lock held; may call anything, flk_once() for
     * other outputs, too. */
    int (*build)(const char *path, void *data);
    void *data;
    const struct flk_options *options; /* of the wait; NULL: none */
    unsigned flags;                    /* enum flk_once_flags */
    unsigned reserved0;
    uint64_t reserved[4]; /* 0, else -EINVAL */
};

/* Makes sure that output is there and current. Nothing is locked or made where it is; else one process of all that ask builds it, and
 * the others wait for that. What was built is brought to disk and appears whole, in the place of an old one; a link there is
 * replaced, not followed. A build that fails or is killed leaves the old one, or none. Who asks for one output by several
 * spellings or linked directories asks for one. timeout_ms limits the wait, not the build.
 * What build() gave (also to another process that was waited for; then flk_error_detail() says whose it was). -EBUSY, -ETIMEDOUT,
 * -ECANCELED as flk_acquire_many(). -EDEADLK: the builder that this is called by, or runs under, builds output itself. -ENOENT,
 * -ENOTDIR: its directory. -ENODATA: build() made nothing; -EINVAL: neither file nor directory. -EACCES, -EROFS, -ENOSPC, -EIO
 * and so on of the output's directory: nothing has changed. Since 0.1. */
int flk_once(const struct flk_once_spec *spec, int64_t timeout_ms) FLK_MUST_CHECK FLK_NONNULL(1);
/* A shared hold of an output that is there, for flk_hold_release(): nobody builds it anew or prunes it meanwhile; it is called by the
 * absolute path. -ENOENT: it isn't there. -EBUSY, -ETIMEDOUT, -EDEADLK as flk_acquire(). Since 0.1. */
int flk_once_use(const char *output, int64_t timeout_ms, struct flk_hold **hold) FLK_MUST_CHECK FLK_NONNULL(1, 3);

/* Is output ready: there, and current for key (NULL: it need only be there)? 1: yes. 0: not that we know; ask flk_once(), which also
 * tells what is wrong with it. Never waits. Any thread may ask as often as it likes: an output that was found ready, by this call
 * or by flk_once(), is remembered, and unless a check is due nothing but memory is read, and nothing shared is written. A check looks
 * at the file, and forgets what has another device, inode, size or time of change; it is due recheck_ms after the last one. 0:
 * each time. Negative: never, so it says 1 even when somebody has removed the output. flockctl prune is told of a use by checks
 * only, once a minute; flk_once_use() keeps it away.
 * A relative output is that of the working directory of the moment, and checked each time. The last 1,024 outputs are
 * remembered; a forked child remembers what its parent did. Since 0.1. */
int flk_once_get(const char *output, const char *key, int64_t recheck_ms) FLK_MUST_CHECK FLK_NONNULL(1);

/* ---- inspect: who has what, and who waits ----
 *
 * A picture of one moment. It takes no lock, opens nothing for writing and takes nobody's wake-up; so what it shows may have
 * changed by the time it is looked at, and each slot was looked at at a moment of its own. Structs only ever grow at their
 * end, which arrays of pointers allow. */

/* States of a slot. Taken is what somebody has open for writing and locked; who that is say, in this order, the record of a living
 * process, and, where there is none, the descriptors of all processes that we may look at.
 *   FREE        nobody has it
 *   HELD        by the process that acquired it, or by one that left no record (it joined in by hand)
 *   INHERITED   the process that acquired it has died or let go, and others have its descriptor still
 *   ABANDONED   nobody has it, and the last holder died without releasing: the next one will be told
 *   BLOCKED     nobody has it, but the pool's check has found its value in use by others; or its file is no FIFO of ours: nobody
 *               can take it */
enum flk_slot_state { FLK_SLOT_FREE, FLK_SLOT_HELD, FLK_SLOT_INHERITED, FLK_SLOT_ABANDONED, FLK_SLOT_BLOCKED };

struct flk_slot {
    unsigned number;
    enum flk_slot_state state;
    const char *value; /* NULL: the row has no values */
    const struct flk_holder *const *holders;
    size_t n_holders;              /* 0 of a taken slot: it changed hands too quickly to tell */
    const struct flk_holder *last; /* INHERITED, ABANDONED: who acquired it; BLOCKED: who died holding it; NULL: none known */
    int64_t blocked_ms; /* BLOCKED: when its value was found in use, since the epoch; 0: its file is damaged */
};

struct flk_waiter {
    const struct flk_holder *who;  /* since_ms: when it queued; pid 0: its record can't be read */
    const struct flk_want *wants;  /* of this row; count 0: not known */
    size_t n_wants;
    int64_t waited_ms;
};

struct flk_row {
    const char *name;
    const char *under;   /* NULL; or the id of a hold of that name, whose slots these are: requests nested below it queue here */
    const char *problem; /* NULL; or why it can't be looked at: a sentence */
    const struct flk_slot *const *slots;
    size_t n_slots; /* 0: nobody has made it yet */
    const struct flk_waiter *const *waiters; /* in the order of the queue */
    size_t n_waiters;
};

/* The rows of names (NULL: all; else it ends with NULL), sorted; behind each those under it. *rows, which ends with NULL, is for
 * flk_inspect_free(). How many there are. A name that isn't there has no slots; a damaged one has a problem. -ENOMEM, -EMFILE:
 * not all of /proc could be looked at. Since 0.1. */
int flk_inspect(const char *const *names, struct flk_row ***rows) FLK_MUST_CHECK FLK_NONNULL(2);
void flk_inspect_free(struct flk_row **rows); /* NULL is fine; since 0.1 */

/* ---- run: a command and its whole tree ----
 *
 * The tree is the command and everything that it starts, also what calls setsid(2) or whose parent ends. It is looked after by
 * a process of its own, the helper: the installed flockctl tool, executed without copying this process, however large that
 * is. It is not a child of this process: waitpid(-1) doesn't see it, no SIGCHLD is sent, and the thread that started it may
 * end. (Its parent is whoever adopts orphans: in a process that is pid 1 or a child subreaper itself, that one, which
 * then gets to reap it as any other orphan.)
 *
 *   the command ends     what it has left running is sent SIGTERM and, after the grace, SIGKILL, until nothing is left
 *   the limit passes     the same for the whole tree, with spec.signal
 *   this process ends    the same, however it ends
 *   the helper is killed the kernel kills the command; what else lives keeps the hold's slots as long as it does
 * With FLK_RUN_DETACH what outlives the command is left alone, the command outlives this process, and the slots are kept by the
 * helper until the command ends, not by the tree. */

enum flk_run_flags {
    FLK_RUN_DETACH = 1 << 0, /* leave alone what outlives the command; it doesn't have the slots */
    FLK_RUN_PGRP = 1 << 1    /* the command gets a process group of its own */
};
/* New namespaces for the command: pid_namespaces(7) and so on. */
enum flk_isolate {
    FLK_NS_PID = 1,    /* nothing survives the command, not even kill -9 of the helper */
    FLK_NS_NET = 2,    /* with a loopback device that is up */
    FLK_NS_IPC = 4,
    FLK_NS_UTS = 8,
    FLK_NS_MOUNT = 16, /* mounts of the command stay its own; with FLK_NS_PID /proc is fresh */
    FLK_NS_USER = 32,  /* this user, when not root, is root inside */
    FLK_NS_CGROUP = 64
};

/* All of it is copied by flk_run_start(); zero is the default everywhere. */
struct flk_run_spec {
    const char *const *argv; /* looked up in this process's PATH; ends with NULL */
    const char *const *envp; /* NULL: environ */
    const char *dir;         /* NULL: as here; a relative argv[0] is looked up from there */
    const char *cgroup;      /* a cgroup-v2 group below ours to start in, made if absent; NULL: none */
    const int *fds;          /* three: stdin, stdout, stderr, each -1 for as here; NULL: all as here. They stay the caller's */
    struct flk_hold *hold;   /* the tree gets its slots and FLOCKCTL_*; NULL: none */
    int64_t limit_ms;        /* 0 or negative: none */
    int64_t kill_after_ms;   /* the grace; 0: 10 s; negative: none, SIGKILL follows at once */
    int signal;              /* at the limit; 0: SIGTERM */
    unsigned flags;          /* enum flk_run_flags */
    unsigned isolate;        /* enum flk_isolate */
    unsigned reserved0;
    uint64_t reserved[6]; /* 0, else -EINVAL */
};

struct flk_run_result {
    int exit_code;        /* -1: a signal ended the command */
    int signal;           /* that signal, or 0 */
    int timed_out;        /* 1: the limit passed */
    unsigned stragglers;  /* that outlived the command and were ended */
    unsigned left;        /* that could not be ended, another user's; they have the slots still */
    int64_t ran_ms;       /* until the command's own end */
    struct rusage rusage; /* of the whole tree, but for what is left or detached */
    uint64_t reserved[4];
};

struct flk_run;

/* Runs a command and waits until its tree is gone: flk_run_start(), flk_run_wait(), flk_run_free(). Since 0.1. */
int flk_run(const struct flk_run_spec *spec, struct flk_run_result *result) FLK_MUST_CHECK FLK_NONNULL(1, 2);
/* Starts the helper and gives it the spec; *run is for flk_run_free(). Whether the command could be executed is told by
 * flk_run_wait().
 * The command gets the signal mask of the calling thread, and signals ignored here are at their default but for SIGHUP, SIGINT and
 * SIGQUIT, which nohup(1) and shells set to be inherited. Descriptors that aren't close-on-exec are inherited as by any exec.
 * hold: no other child of this process gets its slots. It may be released at any time; while the tree lives that unlocks
 * nothing, it only closes: the slots stay taken until the tree is gone.
 * The helper is bindir/flockctl as configured, or the path in $FLOCKCTL_TOOL.
 * -EINVAL: no argv[0], an unknown flag or signal, a hold of a parent process. -EBADF: one of fds isn't open. -ENOPKG: the helper
 * can't be executed. -EAGAIN, -ENOMEM, -EMFILE and the like. Since 0.1. */
int flk_run_start(const struct flk_run_spec *spec, struct flk_run **run) FLK_MUST_CHECK FLK_NONNULL(1, 2);
/* A descriptor to poll for POLLIN, the same for the run's whole life; readable: flk_run_wait() won't block. It stays the run's
 * own. Since 0.1. */
int flk_run_fd(const struct flk_run *run) FLK_MUST_CHECK FLK_NONNULL(1);
/* Waits until the tree is gone, at most so long. May be called again, and says the same again.
 * -EAGAIN: not yet. -ENOENT, -EACCES and others of execve(2): the command could not be executed. -EOPNOTSUPP, -EPERM and others:
 * cgroup or isolate can't be had. -ECHILD: the helper was killed, and what became of the tree isn't known. -EPROTONOSUPPORT: the
 * tool is of another release. -EINVAL: a run of a parent process. Since 0.1. */
int flk_run_wait(struct flk_run *run, int64_t timeout_ms, struct flk_run_result *result) FLK_MUST_CHECK FLK_NONNULL(1, 3);
/* Sends signal to the whole tree. SIGKILL: until nothing is left. 0: ends it as the limit does, spec.signal first, SIGKILL after
 * the grace. Returns at once. -ESRCH: it is gone. -EINVAL: not a signal. Since 0.1. */
int flk_run_kill(struct flk_run *run, int signal) FLK_NONNULL(1);
/* Frees; a tree that still lives is killed first, and waited for. In a forked child it only frees. NULL is fine. Since 0.1. */
void flk_run_free(struct flk_run *run);

/* ---- state: what is to be undone when an owner is gone ----
 *
 * A test that is killed leaves containers, directories, devices behind. So it registers, before it makes such a thing, what undoes
 * it: an item, paths to be removed and a command. When the owner is proven dead, whoever comes first cleans up: the next that
 * acquires the item's name, before it has it; flk_reap(); a process that sleeps in a queue anyway. Each item is cleaned up once.
 *
 *   char id[FLK_ID_SIZE];
 *   const char *paths[] = {"/tmp/scratch", NULL};
 *   struct flk_state_spec spec = {.name = "podman", .paths = paths, .command = "podman rm -f scratch"};
 *   int code = flk_state_add(&spec, id);           // then make them
 *   ...                                            // and undo them
 *   code = flk_state_drop(id);
 *
 * The owner is this process, for as long as it lives; it keeps a descriptor open by which every process, in whatever
 * namespace, can tell. (A forked child isn't the owner. What this process executes in its own place is, but where others can't see its pid:
 * there it is taken for dead.) Or another process, by its pid: then dead is what its pid, start time and pidfd prove, and what
 * they don't prove is alive. */

struct flk_state_spec {
    const char *name;         /* the lock before whose next acquisition it is cleaned up; NULL: none */
    const char *label;        /* for people, and for the command (FLOCKCTL_STATE_LABEL); NULL: none */
    const char *const *paths; /* removed with all that is below, after the command; ends with NULL. NULL: none */
    const char *command;      /* for /bin/sh -c, with /dev/null as stdin and without a terminal's signals; NULL: none */
    const char *dir;          /* the command's; NULL: as here */
    const char *const *envp;  /* its environment, to which FLOCKCTL_STATE_ID, _LABEL and _ATTEMPT are added; NULL: environ */
    int64_t command_limit_ms; /* then it is ended with its tree; 0: 30 s */
    pid_t owner;              /* 0: this process */
    unsigned flags;           /* 0, else -EINVAL */
    uint64_t reserved[4];     /* 0, else -EINVAL */
};

struct flk_state {
    const char *id, *name, *label, *command; /* name NULL: none; label, command "": none */
    const char *const *paths;                /* ends with NULL */
    pid_t owner;                             /* as it was numbered where it was registered */
    int alive;                               /* 0: proven dead */
    const char *reason;                      /* why: "it runs", "no process has its pid any more" */
    unsigned failures;                       /* of cleanups; above 0: it is tried again, with growing pauses */
    unsigned attempts;                       /* begun, whatever became of them */
    int cleaning;                            /* 1: somebody is at it */
    int64_t since_ms, retry_ms;              /* since the epoch: registered; not tried again by itself before */
    const char *problem;                     /* NULL; or why it can't be read, and is left alone: a sentence */
};

/* Registers what is to be undone; all of it is copied. id: for flk_state_drop(). Relative paths are below this process's directory.
 * -EPERM: a path is "/", the home or the lock directory or above one of them, or isn't owned by this user. -ENOENT: the directory that a
 * path is to be in isn't there; -ESRCH: there is no such owner. -ENOSPC and the like: nothing is registered. It isn't handed to a
 * forked child. Since 0.1. */
int flk_state_add(const struct flk_state_spec *spec, char id[FLK_ID_SIZE]) FLK_MUST_CHECK FLK_NONNULL(1, 2);
/* Forgets an item without cleaning it up, whosever it is. -ENOENT: there is none. Since 0.1. */
int flk_state_drop(const char *id) FLK_MUST_CHECK FLK_NONNULL(1);
/* Calls each for all items of that name, NULL: for all; a result other than 0 ends that and is returned. state is valid during the
 * call. Since 0.1. */
int flk_state_list(const char *name, int (*each)(const struct flk_state *state, void *data), void *data)
    FLK_MUST_CHECK FLK_NONNULL(2);
/* Cleans up now what dead owners have left: the items of that name, NULL: all. How many were cleaned up, or with dry_run would be. Waits
 * for commands, but not for items that somebody else is cleaning up. What failed stays, and is tried again, also when its pause
 * isn't over. Commands are run by the tool, as those of flk_run() are, and print nothing. Since 0.1. */
int flk_reap(const char *name, int dry_run) FLK_MUST_CHECK;

static inline void flk_hold_release_at_(struct flk_hold **hold)
{
    flk_hold_release(*hold);
}
#define FLK_AUTO_RELEASE __attribute__((cleanup(flk_hold_release_at_))) /* on a struct flk_hold * set to NULL or a hold */

#pragma GCC visibility pop
#ifdef __cplusplus
#pragma GCC diagnostic pop
}
#endif
#endif
