/* The front of the one-file binary: unpacks the folder that is appended to it, once, and becomes the
 * program in there.
 *
 * PyInstaller's own one-file program unpacks 120 MB at every start, cannot where /tmp is mounted
 * noexec, and leaves server and folder behind when its parent is killed. This one is the same
 * process before and after, so there is nothing to leave behind, and the second start unpacks
 * nothing. Several candidates are tried for a place that belongs to this user alone and from which
 * programs may be run; TURNPIKE_UNPACK_DIR names one.
 *
 * The file: this program; a gzip stream of a tar archive; 24 bytes: "TURNPIKE", where the stream
 * begins, how long it is (little-endian). The folder is named after the stream's CRC and length,
 * and is whole if it is there under that name. Whoever runs from it holds a shared lock on its file
 * ".lock" for as long as it lives; one that nobody holds is removed when another version is unpacked.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#define MAGIC "TURNPIKE"
#define FOOTER 24
#define BLOCK 512
#ifndef NEEDED_MIB
#define NEEDED_MIB 320 /* free, to unpack into; an edition that is larger says so when it is compiled */
#endif
#define NEEDED ((uint64_t)NEEDED_MIB << 20)
#define TEXT(number) #number
#define TEXT_OF(number) TEXT(number)

static char reasons[4096]; /* why each place was not taken, a line each */

static void note(const char *place, const char *why) {
    size_t used = strlen(reasons);
    snprintf(reasons + used, sizeof reasons - used, "  %s: %s\n", place, why);
}

static void fail(const char *format, ...) {
    va_list rest;
    va_start(rest, format);
    fputs("turnpike: ", stderr);
    vfprintf(stderr, format, rest);
    va_end(rest);
    fputc('\n', stderr);
    exit(1);
}

static uint64_t number_at(const unsigned char *at) {
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--) value = value << 8 | at[i];
    return value;
}

struct source {
    z_stream stream;
    unsigned char header[BLOCK];
};

/* Exactly so many bytes of the archive; whether they came. */
static int pull(struct source *from, void *into, size_t size) {
    from->stream.next_out = into;
    from->stream.avail_out = size;
    while (from->stream.avail_out) {
        int state = inflate(&from->stream, Z_NO_FLUSH);
        if (state == Z_STREAM_END) break;
        if (state != Z_OK) return 0;
    }
    return from->stream.avail_out == 0;
}

/* The rest of the stream, whose end proves all of it by a checksum. */
static int ends_well(struct source *from) {
    unsigned char rest[BLOCK];
    int state;
    do {
        from->stream.next_out = rest;
        from->stream.avail_out = sizeof rest;
        state = inflate(&from->stream, Z_NO_FLUSH);
    } while (state == Z_OK);
    return state == Z_STREAM_END;
}

static int write_file(int folder, const char *name, mode_t mode, uint64_t size, struct source *from) {
    unsigned char piece[64 * 1024];
    int file = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    if (file < 0) return -1;
    uint64_t padded = (size + BLOCK - 1) / BLOCK * BLOCK;
    for (uint64_t done = 0; done < padded;) {
        size_t part = padded - done < sizeof piece ? padded - done : sizeof piece;
        if (!pull(from, piece, part)) { close(file); errno = EBADMSG; return -1; }
        size_t wanted = done >= size ? 0 : size - done < part ? size - done : part;
        for (size_t written = 0; written < wanted;) {
            ssize_t count = write(file, piece + written, wanted - written);
            if (count < 0) { int why = errno; close(file); errno = why; return -1; }
            written += count;
        }
        done += part;
    }
    return close(file);
}

/* One member of the archive. Names come from our own build; "..", "/" and links out are refused all
 * the same. 1: there was one, 0: the end, -1: failed. */
static int unpack_member(int folder, struct source *from) {
    unsigned char *h = from->header;
    if (!pull(from, h, BLOCK)) { errno = EBADMSG; return -1; }
    if (!h[0]) return 0;
    char name[257], target[101];
    if (h[345]) snprintf(name, sizeof name, "%.155s/%.100s", (char *)h + 345, (char *)h);
    else snprintf(name, sizeof name, "%.100s", (char *)h);
    snprintf(target, sizeof target, "%.100s", (char *)h + 157);
    if (name[0] == '/' || strstr(name, "..")) { errno = EBADMSG; return -1; }
    mode_t mode = strtoul((char *)h + 100, NULL, 8) & 0700;
    uint64_t size = strtoull((char *)h + 124, NULL, 8);
    int done;
    if (h[156] == '5') done = mkdirat(folder, name, 0700);
    else if (h[156] == '2') {
        if (target[0] == '/') { errno = EBADMSG; return -1; }
        done = symlinkat(target, folder, name);
    } else done = write_file(folder, name, mode, size, from);
    return done < 0 ? -1 : 1;
}

static void remove_tree(int parent, const char *name) {
    int folder = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *list = folder < 0 ? NULL : fdopendir(folder);
    if (list) {
        for (struct dirent *entry; (entry = readdir(list));) {
            if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
            if (entry->d_type == DT_DIR) remove_tree(dirfd(list), entry->d_name);
            else unlinkat(dirfd(list), entry->d_name, 0);
        }
        closedir(list);
    }
    unlinkat(parent, name, AT_REMOVEDIR);
}

/* Hold the folder; the lock is this process's until it ends, programs that it becomes included. */
static int hold(int parent, const char *name) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/.lock", name);
    int lock = openat(parent, path, O_RDONLY | O_NOFOLLOW);
    if (lock >= 0 && flock(lock, LOCK_SH) == 0) return 1;
    if (lock >= 0) close(lock);
    return 0;
}

/* Whether an entry was put there by one of us: a CRC and a length, perhaps a process. Others of this
 * user's may keep theirs in the same folder. */
static int is_ours(const char *name) {
    return strspn(name, "0123456789abcdef") == 16 && name[16] == '-' && strspn(name + 17, "0123456789abcdef-") == strlen(name + 17);
}

/* Other versions, and what a start that was cut short left behind. */
static void remove_others(int parent, const char *name) {
    DIR *list = fdopendir(dup(parent));
    if (!list) return;
    for (struct dirent *entry; (entry = readdir(list));) {
        char path[PATH_MAX];
        if (!is_ours(entry->d_name) || !strcmp(entry->d_name, name)) continue;
        snprintf(path, sizeof path, "%s/.lock", entry->d_name);
        int lock = openat(parent, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        if (lock < 0 || flock(lock, LOCK_EX | LOCK_NB) == 0) {
            struct stat seen;
            int old = fstatat(parent, entry->d_name, &seen, AT_SYMLINK_NOFOLLOW) == 0;
            if (lock >= 0 || (old && time(NULL) - seen.st_mtime > 600)) remove_tree(parent, entry->d_name);
        }
        if (lock >= 0) close(lock);
    }
    closedir(list);
}

/* Unpack beside the place, and move it there in one step, so that nobody sees half of it. */
static int unpack(int parent, const char *name, const unsigned char *packed, uint64_t size) {
    char draft[64];
    snprintf(draft, sizeof draft, "%s-%ld", name, (long)getpid());
    remove_tree(parent, draft);
    if (mkdirat(parent, draft, 0700) < 0) return -1;
    int folder = openat(parent, draft, O_RDONLY | O_DIRECTORY | O_CLOEXEC), lock = -1, why;
    if (folder >= 0) lock = openat(folder, ".lock", O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (lock < 0 || flock(lock, LOCK_SH) < 0) goto failed;
    struct source from = {.stream = {.next_in = (unsigned char *)packed, .avail_in = size}};
    if (inflateInit2(&from.stream, 16 + MAX_WBITS) != Z_OK) goto failed;
    int state;
    while ((state = unpack_member(folder, &from)) > 0) {}
    if (state == 0 && !ends_well(&from)) { state = -1; errno = EBADMSG; }
    why = errno;
    inflateEnd(&from.stream);
    errno = why;
    if (state < 0 || syncfs(folder) < 0) goto failed;
    if (renameat(parent, draft, parent, name) < 0 && errno != ENOTEMPTY && errno != EEXIST) goto failed;
    remove_tree(parent, draft); /* there still, if another start was quicker */
    close(lock);
    close(folder);
    return 0;
failed:
    why = errno;
    if (lock >= 0) close(lock);
    if (folder >= 0) close(folder);
    remove_tree(parent, draft);
    errno = why;
    return -1;
}

/* A folder below ``base`` that is ours alone; a descriptor of it, or -1. */
static int place_in(const char *base, char *path, size_t room) {
    struct stat seen;
    struct statvfs disk;
    if (!base || base[0] != '/') return -1;
    /* Below a folder that everybody writes to, the name tells whose it is. */
    if (stat(base, &seen) == 0 && seen.st_mode & S_IWOTH)
        snprintf(path, room, "%s/turnpike-%ld", base, (long)geteuid());
    else
        snprintf(path, room, "%s/turnpike", base);
    mkdir(base, 0700);
    if (mkdir(path, 0700) < 0 && errno != EEXIST) { note(path, strerror(errno)); return -1; }
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0 || fstat(folder, &seen) < 0) note(path, strerror(errno));
    else if (seen.st_uid != geteuid() || seen.st_mode & (S_IWGRP | S_IWOTH)) note(path, "others can write to it");
    else if (fstatvfs(folder, &disk) < 0) note(path, strerror(errno));
    else if (disk.f_flag & ST_NOEXEC) note(path, "mounted noexec");
    else return folder;
    if (folder >= 0) close(folder);
    return -1;
}

static int has_room(int folder) {
    struct statvfs disk;
    return fstatvfs(folder, &disk) == 0 && (uint64_t)disk.f_bavail * disk.f_frsize >= NEEDED;
}

/* Where the folder is, or has been put. Leaves with a message where it can be nowhere. */
static void find_place(const char *name, const char *file, const unsigned char *packed, uint64_t size, char *path, size_t room) {
    char home[PATH_MAX] = "", beside[PATH_MAX] = "";
    if (getenv("HOME")) snprintf(home, sizeof home, "%s/.cache", getenv("HOME"));
    const char *slash = strrchr(file, '/');
    if (slash) snprintf(beside, sizeof beside, "%.*s/.cache", (int)(slash - file), file);
    const char *asked = getenv("TURNPIKE_UNPACK_DIR");
    const char *bases[] = {asked, getenv("CACHE_DIRECTORY"), getenv("XDG_CACHE_HOME"), home, "/var/cache",
                           getenv("TMPDIR"), "/tmp", "/var/tmp", "/dev/shm", beside};
    char base[PATH_MAX];
    for (size_t i = 0; i < (asked ? 1 : sizeof bases / sizeof *bases); i++) {
        int parent = place_in(bases[i], base, sizeof base);
        if (parent < 0) continue;
        snprintf(path, room, "%s/%s", base, name);
        if (hold(parent, name)) { close(parent); return; }
        if (!has_room(parent)) note(base, "less than " TEXT_OF(NEEDED_MIB) " MiB free");
        else if (unpack(parent, name, packed, size) == 0 && hold(parent, name)) {
            remove_others(parent, name);
            close(parent);
            return;
        } else if (errno == EBADMSG) fail("%s is damaged. Copy it again, and compare it with SHA256SUMS.", file);
        else note(base, strerror(errno));
        close(parent);
    }
    fail("there is no place to unpack to. Looked at:\n%sName one with TURNPIKE_UNPACK_DIR=/some/folder: a"
         " folder of this user's own, not mounted noexec, with " TEXT_OF(NEEDED_MIB) " MiB free. Or use the archive of the"
         " folder, which unpacks nothing.", reasons);
}

int main(int count, char **arguments) {
    char file[PATH_MAX], folder[PATH_MAX], program[PATH_MAX + 16], name[40];
    (void)count;
    int knows_itself = realpath("/proc/self/exe", file) != NULL;
    if (!knows_itself && !realpath((const char *)getauxval(AT_EXECFN), file)) fail("it cannot find its own file");
    int self = open(file, O_RDONLY | O_CLOEXEC);
    struct stat seen;
    if (self < 0 || fstat(self, &seen) < 0) fail("%s cannot be read: %s", file, strerror(errno));
    unsigned char *all = mmap(NULL, seen.st_size, PROT_READ, MAP_PRIVATE, self, 0);
    if (all == MAP_FAILED) fail("%s cannot be read: %s", file, strerror(errno));
    unsigned char *footer = all + seen.st_size - FOOTER;
    if (seen.st_size < FOOTER || memcmp(footer, MAGIC, 8)) fail("%s is incomplete. Copy it again, and compare it with SHA256SUMS.", file);
    uint64_t offset = number_at(footer + 8), size = number_at(footer + 16);
    if (size < 8 || offset + size != (uint64_t)seen.st_size - FOOTER) fail("%s is damaged. Copy it again, and compare it with SHA256SUMS.", file);
    uint64_t proof = number_at(all + offset + size - 8); /* gzip ends with CRC-32 and length */
    snprintf(name, sizeof name, "%016llx-%llx", (unsigned long long)proof, (unsigned long long)size);
    find_place(name, file, all + offset, size, folder, sizeof folder);
    munmap(all, seen.st_size);
    snprintf(program, sizeof program, "%s/turnpike", folder);
    setenv("TURNPIKE_FILE", file, 1);
    if (!knows_itself) { /* without /proc the program goes by its name, and the loader is told where */
        char libraries[PATH_MAX + 16];
        snprintf(libraries, sizeof libraries, "%s/_internal", folder);
        setenv("LD_LIBRARY_PATH", libraries, 1);
        arguments[0] = program;
    }
    execv(program, arguments);
    if (errno == ENOENT) fail("this system has no glibc, which Turnpike needs (2.36 or newer)");
    fail("%s cannot be run: %s", program, strerror(errno));
}
