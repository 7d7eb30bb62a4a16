/* SPDX-License-Identifier: LGPL-2.1-only */
/* xentwin-disk: starts, stops and asks the instances of replicated disks on this host. */
#include "xentwin_disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REQUEST_LIMIT_MS 600000

static const char help[] =
    "xentwin-disk: the instances of replicated disks on this host\n"
    "  start DOMAIN VDEV PATH      serve PATH; prints the NBD socket. Fine if it runs already.\n"
    "                              PATH may be drbd:RESOURCE: no socket, but /dev/drbdN\n"
    "  stop DOMAIN VDEV            end the instance\n"
    "  status [DOMAIN VDEV]        one instance, or all\n"
    "  attach DOMAIN VDEV --path PATH [--size OCTETS]\n"
    "                              run by ssh on the backup: stdin and stdout are the link\n"
    "  request DOMAIN VDEV WORD... send a request to the control socket, print its reply\n"
    "  reset DOMAIN VDEV           forget all about a disk: it is new then\n"
    "Options of start and attach:\n"
    "  --role primary|backup       start only; primary is usual\n"
    "  --force-primary             serve a disk that may be stale\n"
    "  --state DIR                 instead of /var/lib/xentwin/DOMAIN-VDEV\n"
    "  --shared JOURNAL            both hosts see the same PATH and JOURNAL: nothing is copied\n"
    "  --settle-ms N               shared: how long the storage may take for a claim (1000)\n"
    "  --limit-ms N                how long the backup may keep a write waiting (3000)\n"
    "  --on-slow drop|hold         then: end the protection, or let the guest wait (drop)\n"
    "  --queue SIZE                memory for what is on the way (64M)\n"
    "  --journal SIZE              the backup's journal (512M)\n"
    "  --threads N                 requests at a time (16)\n";

static char last[DISK_REPLY_MAX];

void complain(const char *format, ...)
{
    va_list al;

    va_start(al, format);
    vsnprintf(last, sizeof(last), format, al);
    va_end(al);
    fprintf(stderr, "xentwin-disk: %s\n", last);
}

const char *complained(void)
{
    return last;
}

static int usage(const char *format, ...) __attribute__((format(printf, 1, 2)));
static int usage(const char *format, ...)
{
    char text[512];
    va_list al;

    va_start(al, format);
    vsnprintf(text, sizeof(text), format, al);
    va_end(al);
    complain("%s; see xentwin-disk --help", text);
    return EXIT_USAGE;
}

/* ---- options ---- */

static bool wrong(char why[OPTION_WHY_MAX], const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static bool wrong(char why[OPTION_WHY_MAX], const char *format, ...)
{
    va_list al;

    va_start(al, format);
    vsnprintf(why, OPTION_WHY_MAX, format, al);
    va_end(al);
    return false;
}

static bool take_option(struct instance *in, int o, char *arg, char why[OPTION_WHY_MAX])
{
    char *end;

    switch (o) {
    case 'r':
        if (strcmp(arg, "primary") && strcmp(arg, "backup"))
            return wrong(why, "--role is primary or backup, not \"%s\"", arg);
        in->backup = !strcmp(arg, "backup");
        break;
    case 's':
        in->state_option = arg;
        break;
    case 'q':
        in->queue = arg;
        break;
    case 'j':
        in->journal = arg;
        break;
    case 'l':
        in->limit_ms = arg;
        break;
    case 'e':
        in->settle_ms = arg;
        break;
    case 't':
        in->threads = arg;
        break;
    case 'o':
        if (strcmp(arg, "drop") && strcmp(arg, "hold"))
            return wrong(why, "--on-slow is drop or hold, not \"%s\"", arg);
        in->on_slow = arg;
        break;
    case 'f':
        in->force_primary = true;
        break;
    case 'h':
        if (*arg != '/') return wrong(why, "--shared is a whole path, not \"%s\"", arg);
        in->shared = arg;
        break;
    case 'p':
        in->path = arg;
        break;
    case 'z':
        errno = 0;
        in->size = strtoull(arg, &end, 10);
        if (errno || *arg < '0' || *arg > '9' || *end || !in->size)
            return wrong(why, "--size is a number of octets, not \"%s\"", arg);
        break;
    default:
        return false;
    }
    return true;
}

bool parse_options(struct instance *in, int argc, char **argv, char why[OPTION_WHY_MAX])
{
    static const struct option opts[] = {
        {"role", 1, NULL, 'r'},    {"state", 1, NULL, 's'},         {"queue", 1, NULL, 'q'},
        {"journal", 1, NULL, 'j'}, {"limit-ms", 1, NULL, 'l'},      {"threads", 1, NULL, 't'},
        {"on-slow", 1, NULL, 'o'}, {"force-primary", 0, NULL, 'f'}, {"path", 1, NULL, 'p'},
        {"size", 1, NULL, 'z'},    {"shared", 1, NULL, 'h'},        {"settle-ms", 1, NULL, 'e'},
        {NULL, 0, NULL, 0}};
    int o;

    opterr = 0;
    while ((o = getopt_long(argc, argv, "", opts, NULL)) != -1) {
        if (o == '?')
            return wrong(why, "\"%s\" is no option, or lacks its value", argv[optind - 1]);
        if (!take_option(in, o, optarg, why)) return false;
    }
    return true;
}

static int take_names(struct instance *in, const char *domain, const char *vdev)
{
    if (!disk_name_fine(domain) || !disk_name_fine(vdev))
        return usage("\"%s\" is not usable as a name", disk_name_fine(domain) ? vdev : domain);
    in->domain = domain;
    in->vdev = vdev;
    int r = disk_run_dir(in->run_dir, sizeof(in->run_dir), domain, vdev);
    if (!r && !in->state_option)
        r = disk_state_dir(in->state_dir, sizeof(in->state_dir), domain, vdev);
    else if (!r)
        snprintf(in->state_dir, sizeof(in->state_dir), "%s", in->state_option);
    return r ? usage("the name of a folder is too long") : 0;
}

/* ---- commands ---- */

static int cmd_start(struct instance *in, int argc, char **argv)
{
    bool running;

    (void)argc;
    in->path = argv[0];
    int r = instance_start(in, &running);
    if (!r && !instance_is_drbd(in)) printf("%s/nbd.sock\n", in->run_dir);
    return r;
}

/* fd is what client_connect said. */
static int not_running(const struct instance *in, int fd)
{
    if (fd == -1) complain("no instance %s runs here", instance_name(in));
    return 1;
}

static int cmd_stop(struct instance *in, int argc, char **argv)
{
    char reply[DISK_REPLY_MAX];
    int fd = client_reach(in);

    (void)argc;
    (void)argv;
    if (fd < 0) return fd == -1 ? 0 : 1;
    int r = client_end(in, fd, "stop", reply);
    if (r) complain("stop: the instance %s-%s: %s", in->domain, in->vdev, reply);
    return r;
}

static int cmd_request(struct instance *in, int argc, char **argv)
{
    char reply[DISK_REPLY_MAX], text[DISK_REQUEST_MAX] = "";
    size_t n = 0;
    int fd, r;

    for (int i = 0; i < argc; i++) {
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s", i ? " " : "", argv[i]);
        if (n >= sizeof(text)) return usage("the request is too long");
    }
    fd = client_connect(in);
    if (fd < 0) return not_running(in, fd);
    r = client_request(fd, text, NULL, 0, reply, REQUEST_LIMIT_MS);
    close(fd);
    fprintf(r ? stderr : stdout, "%s%s\n", r ? "xentwin-disk: " : "", reply);
    return r ? 1 : 0;
}

/* Takes fd. */
static int print_status(const struct instance *in, int fd)
{
    char reply[DISK_REPLY_MAX];
    int r;

    if (fd < 0) return not_running(in, fd);
    r = client_request(fd, "status", NULL, 0, reply, STOP_LIMIT_MS);
    close(fd);
    if (r) {
        complain("the instance %s: %s", instance_name(in), reply);
        return 1;
    }
    fputs(instance_name(in), stdout);
    for (char *p = reply + 3, *word; (word = strsep(&p, " "));)
        printf(" %s", word);
    putchar('\n');
    return 0;
}

/* All: folders disk-DOMAIN-VDEV; where the domain ends is not needed to ask them. One that ends
 * leaves its folder behind. */
static int status_all(void)
{
    char base[PATH_MAX];
    struct instance in = {.domain = NULL};
    struct dirent *e;
    int r = 0;

    if (disk_run_dir(base, sizeof(base), "x", "y")) return 1;
    *strrchr(base, '/') = 0;
    DIR *dir = opendir(base);
    if (!dir && errno == ENOENT) return 0;
    if (!dir) {
        complain("cannot read %s: %s", base, strerror(errno));
        return 1;
    }
    while ((e = readdir(dir))) {
        if (strncmp(e->d_name, "disk-", 5)) continue;
        int n = snprintf(in.run_dir, sizeof(in.run_dir), "%s/%s", base, e->d_name);
        if (n < 0 || (size_t)n >= sizeof(in.run_dir)) continue;
        int fd = client_connect(&in);
        if (fd != -1) r |= print_status(&in, fd);
    }
    closedir(dir);
    return r;
}

static int cmd_status(struct instance *in, int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return print_status(in, client_connect(in));
}

static int cmd_attach(struct instance *in, int argc, char **argv)
{
    (void)argc;
    (void)argv;
    if (!in->path) return usage("attach needs --path");
    return instance_attach(in);
}

static int cmd_reset(struct instance *in, int argc, char **argv)
{
    static const char *const names[] = {"state", "bitmap", "journal", "state.new"};
    char path[PATH_MAX + 16];
    int fd = client_connect(in);

    (void)argc;
    (void)argv;
    if (fd < -1) return 1;
    if (fd >= 0) {
        close(fd);
        complain("the instance %s-%s runs: stop it first", in->domain, in->vdev);
        return 1;
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        snprintf(path, sizeof(path), "%s/%s", in->state_dir, names[i]);
        if (!unlink(path) || errno == ENOENT) continue;
        complain("cannot remove %s: %s", path, strerror(errno));
        return 1;
    }
    return 0;
}

static const struct {
    const char *name;
    int min, max; /* words behind DOMAIN and VDEV */
    int (*run)(struct instance *in, int argc, char **argv);
} commands[] = {
    {"start", 1, 1, cmd_start},   {"stop", 0, 0, cmd_stop},       {"status", 0, 0, cmd_status},
    {"attach", 0, 0, cmd_attach}, {"request", 1, 4, cmd_request}, {"reset", 0, 0, cmd_reset},
};

int main(int argc, char **argv)
{
    struct instance in = {.domain = NULL};
    char why[OPTION_WHY_MAX];
    int r;

    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            fputs(help, stdout);
            return 0;
        }
    if (!parse_options(&in, argc, argv, why)) return usage("%s", why);
    argc -= optind;
    argv += optind;
    if (argc < 1) return usage("no command given");
    if (argc == 1 && !strcmp(argv[0], "status")) return status_all();
    for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
        if (strcmp(commands[i].name, argv[0])) continue;
        if (argc - 3 < commands[i].min || argc - 3 > commands[i].max)
            return usage("%s: wrong number of words", argv[0]);
        r = take_names(&in, argv[1], argv[2]);
        return r ? r : commands[i].run(&in, argc - 3, argv + 3);
    }
    return usage("\"%s\" is no command", argv[0]);
}
