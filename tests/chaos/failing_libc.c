/* What a server asks of its machine, failing on demand: preloaded into it by `failing_servers`.

   A disk is full while the file that CARTRIDGE_WARP_DISK_FULL names is there: no file grows, except
   logs, which are on another disk: the write-ahead log of PostgreSQL and those of MariaDB's engines.
   A clock is wrong by as many nanoseconds as the file that CARTRIDGE_WARP_CLOCK names holds. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static volatile const int64_t *wrong_by;
static const char *full;

__attribute__((constructor)) static void begin(void) {
  const char *clock_file = getenv("CARTRIDGE_WARP_CLOCK");
  int fd = clock_file ? open(clock_file, O_RDONLY | O_CLOEXEC) : -1;
  if (fd >= 0) {
    void *there = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
    if (there != MAP_FAILED) wrong_by = there;
    close(fd);
  }
  full = getenv("CARTRIDGE_WARP_DISK_FULL");
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* ------------------------------------------------------------------ the disk */

static int no_room(int fd, off64_t end) {
  char link[64], path[4096];
  struct stat64 now;
  if (!full || access(full, F_OK) != 0) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  if (strstr(path, "/pg_wal/") || strstr(path, "/aria_log") || strstr(path, "/ib_logfile")) return 0;
  return fstat64(fd, &now) == 0 && S_ISREG(now.st_mode) && end > now.st_size;
}

static off64_t length_of(const struct iovec *parts, int count) {
  off64_t sum = 0;
  for (int i = 0; i < count; i++) sum += (off64_t)parts[i].iov_len;
  return sum;
}

#define REFUSE(fd, end) if (no_room(fd, end)) return errno = ENOSPC, -1

ssize_t pwrite64(int fd, const void *from, size_t count, off64_t at) {
  static __typeof__(&pwrite64) real;
  if (!real) real = REAL(pwrite64);
  REFUSE(fd, at + (off64_t)count);
  return real(fd, from, count, at);
}

ssize_t pwrite(int fd, const void *from, size_t count, off_t at) {
  return pwrite64(fd, from, count, at);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) {
  static __typeof__(&pwritev64) real;
  if (!real) real = REAL(pwritev64);
  REFUSE(fd, at + length_of(parts, count));
  return real(fd, parts, count, at);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) {
  return pwritev64(fd, parts, count, at);
}

int posix_fallocate64(int fd, off64_t at, off64_t count) {
  static __typeof__(&posix_fallocate64) real;
  if (!real) real = REAL(posix_fallocate64);
  if (no_room(fd, at + count)) return ENOSPC;
  return real(fd, at, count);
}

int posix_fallocate(int fd, off_t at, off_t count) { return posix_fallocate64(fd, at, count); }

/* ------------------------------------------------------------------ the clock */

int clock_gettime(clockid_t which, struct timespec *at) {
  static __typeof__(&clock_gettime) real;
  if (!real) real = REAL(clock_gettime);
  int said = real(which, at);
  if (said == 0 && wrong_by && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) {
    int64_t ns = at->tv_nsec + *wrong_by % 1000000000;
    at->tv_sec += *wrong_by / 1000000000 + (ns >= 1000000000) - (ns < 0);
    at->tv_nsec = ns + (ns < 0 ? 1000000000 : 0) - (ns >= 1000000000 ? 1000000000 : 0);
  }
  return said;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
  struct timespec now;
  (void)zone;
  if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
  at->tv_sec = now.tv_sec;
  at->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}
