/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * xl migrate-receive: with --replication the twin of libxl_twin.h, otherwise the stock receiver
 * with our helper. The stock one does not destroy its copy when it cannot tell the sender first that
 * it failed, so its answers go to a process that reads them to the end, whether there is a sender or not.
 */
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uuid/uuid.h>

#include "libxl_channel.h"
#include "libxl_twin.h"
#include "xl.h"
#include "xl_migrate_receive.h"
#include "xl_opts.h"
#include "xl_stock.h"

#define COMMAND "migrate-receive"
#define LIMIT_MIN_MS 200
#define LIMIT_MAX_MS 600000

enum long_option {
    OPT_REMUS = XL_OPT_LONG,
    OPT_REPLICATION,
    OPT_LIMIT_MS,
    OPT_ON_LINK_LOSS,
    OPT_ARBITER,
    OPT_SESSION,
    OPT_DOMAIN,
    OPT_SELF_NAME,
    OPT_PEER_NAME,
    OPT_DISK,
    OPT_TWIN
};

static const struct option long_options[] = {
    {"remus", no_argument, NULL, OPT_REMUS},
    {"replication", required_argument, NULL, OPT_REPLICATION},
    {"limit-ms", required_argument, NULL, OPT_LIMIT_MS},
    {"on-link-loss", required_argument, NULL, OPT_ON_LINK_LOSS},
    {"arbiter", required_argument, NULL, OPT_ARBITER},
    {"session", required_argument, NULL, OPT_SESSION},
    {"domain", required_argument, NULL, OPT_DOMAIN},
    {"self-name", required_argument, NULL, OPT_SELF_NAME},
    {"peer-name", required_argument, NULL, OPT_PEER_NAME},
    {"disk", required_argument, NULL, OPT_DISK},
    {"twin", required_argument, NULL, OPT_TWIN},
    {"help", no_argument, NULL, 'h'},
    {0},
};

bool xl_receive_wanted(int argc, char **argv)
{
    static const char word[] = "--replication";
    int i;

    for (i = 1; i < argc; i++) {
        if (!strncmp(argv[i], word, sizeof(word) - 1)) return true;
    }
    return false;
}

static bool take_version(const char *text)
{
    uint64_t version;

    if (!xl_parse_number(COMMAND, "--replication", text, 1, UINT32_MAX, &version)) return false;
    if (version == CHANNEL_VERSION) return true;
    return !xl_usage(COMMAND,
                     "replication %s is asked for, this xentwin (%s) speaks %u: install the same "
                     "version on both hosts",
                     text, XENTWIN_VERSION, CHANNEL_VERSION);
}

static bool take_session(const char *text, const char **out)
{
    uuid_t uuid;

    *out = text;
    return !uuid_parse(text, uuid) || !xl_usage(COMMAND, "--session '%.40s' is no uuid", text);
}

static bool take_name(const char *option, const char *text, const char **out)
{
    *out = text;
    return xl_parse_name(COMMAND, option, text);
}

static bool take_disk(struct receive_opts *o, const char *text)
{
    if (!libxl__disk_vdev_ok(text))
        return !xl_usage(COMMAND, "--disk '%.40s' is no virtual device like xvda", text);
    if (o->num_disks == DISK_MAX)
        return !xl_usage(COMMAND, "--disk: more than %d replicated disks", DISK_MAX);
    o->disks[o->num_disks++] = text;
    return true;
}

static bool take_option(struct receive_opts *o, int opt, const char *value)
{
    uint64_t n;

    switch (opt) {
    case OPT_REPLICATION:
        return take_version(value);
    case OPT_LIMIT_MS:
        if (!xl_parse_number(COMMAND, "--limit-ms", value, LIMIT_MIN_MS, LIMIT_MAX_MS, &n))
            return false;
        o->limit_ms = (int)n;
        return true;
    case OPT_ON_LINK_LOSS:
        o->on_link_loss =
            strcmp(value, "backup") ? LIBXL_LINK_LOSS_PRIMARY : LIBXL_LINK_LOSS_BACKUP;
        return !strcmp(value, "backup") || !strcmp(value, "primary") ||
               !xl_usage(COMMAND, "--on-link-loss '%.40s' is neither 'primary' nor 'backup'",
                         value);
    case OPT_ARBITER:
        o->arbiter = value;
        return *value || !xl_usage(COMMAND, "--arbiter is empty");
    case OPT_SESSION:
        return take_session(value, &o->session);
    case OPT_DOMAIN:
        return take_name("--domain", value, &o->domain);
    case OPT_SELF_NAME:
        return take_name("--self-name", value, &o->self_name);
    case OPT_PEER_NAME:
        return take_name("--peer-name", value, &o->peer_name);
    case OPT_DISK:
        return take_disk(o, value);
    case OPT_TWIN:
        o->twin = value;
        return xl_parse_twin(COMMAND, value);
    case 'e':
        o->no_monitor = true;
        return true;
    default:
        return true; /* --remus: the only kind there is */
    }
}

int xl_receive_parse(struct receive_opts *o, int argc, char **argv)
{
    int opt;

    *o = (struct receive_opts){.limit_ms = LIBXL_REPLICATION_LIMIT_MS_DEFAULT, .twin = "auto"};
    xl_getopt_start();
    while ((opt = xl_getopt(COMMAND, argc, argv, ":reh", long_options)) != XL_OPT_END) {
        if (opt == XL_OPT_BAD || !take_option(o, opt, optarg)) return XL_USAGE;
    }
    if (optind < argc) return xl_usage(COMMAND, "'%.40s' is one argument too many", argv[optind]);
    if (!o->session || !o->domain || !o->self_name || !o->peer_name)
        return xl_usage(COMMAND,
                        "--replication also needs --session, --domain, --self-name and "
                        "--peer-name; this command is started by 'xl remus' of the other host");
    if (o->arbiter && !xl_arbiter_usable(COMMAND, o->arbiter)) return XL_USAGE;
    return XL_DONE;
}

static int receive(const struct receive_opts *o)
{
    struct twin_options twin = {
        .limit_ms = o->limit_ms,
        .rule = o->on_link_loss == LIBXL_LINK_LOSS_BACKUP ? LINK_LOSS_BACKUP : LINK_LOSS_PRIMARY,
        .arbiter = o->arbiter,
        .session = o->session,
        .domain = o->domain,
        .self = o->self_name,
        .peer = o->peer_name,
        .no_monitor = o->no_monitor,
        .disks = o->disks,
        .num_disks = o->num_disks,
        .choice = !strcmp(o->twin, "warm")   ? TWIN_WARM
                  : !strcmp(o->twin, "cold") ? TWIN_COLD
                                             : TWIN_AUTO,
        .in_fd = STDIN_FILENO,
        .out_fd = STDOUT_FILENO,
        .stock_xl = xl_stock_path(),
    };

    if (!twin.stock_xl) return XL_FAILED;
    if (geteuid() != 0) return xl_fail(COMMAND, "only root may do this: connect as root");
    return libxl__twin_receive(&twin);
}

/* What comes from `in` goes to standard output, as long as somebody takes it. */
static void __attribute__((noreturn)) pass_answers(int in)
{
    static const int ignored[] = {SIGPIPE, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
    char buf[4096];
    bool heard = true;

    for (size_t i = 0; i < sizeof(ignored) / sizeof(*ignored); i++)
        signal(ignored[i], SIG_IGN);
    close(STDIN_FILENO);
    for (;;) {
        ssize_t n = read(in, buf, sizeof(buf));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) _exit(0);
        for (ssize_t at = 0; heard && at < n;) {
            ssize_t w = write(STDOUT_FILENO, buf + at, (size_t)(n - at));
            if (w >= 0) at += w;
            heard = w >= 0 || errno == EINTR;
        }
    }
}

/* Standard output is read by a process of its own from here on; it ends when we and what we become have closed it. */
static bool outlive_sender(void)
{
    int fds[2];
    pid_t pid;

    if (pipe(fds)) return false;
    pid = fork();
    if (pid == 0) {
        close(fds[1]);
        /* Not a child of the stock xl, which wonders about those it does not know. */
        pid = fork();
        if (pid == 0) pass_answers(fds[0]);
        _exit(pid < 0);
    }
    int status = 1;
    bool ok = pid > 0 && waitpid(pid, &status, 0) == pid && !status &&
              dup2(fds[1], STDOUT_FILENO) == STDOUT_FILENO;
    close(fds[0]);
    close(fds[1]);
    return ok;
}

int xl_main_migrate_receive(int argc, char **argv)
{
    struct receive_opts o;
    int rc;

    if (!xl_receive_wanted(argc, argv)) {
        if (!isatty(STDOUT_FILENO) && !outlive_sender())
            return xl_fail(COMMAND, "cannot start a process: %s", strerror(errno));
        return xl_stock_become(argv);
    }
    rc = xl_receive_parse(&o, argc, argv);
    return rc ? rc : receive(&o);
}
