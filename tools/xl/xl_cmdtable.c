/* SPDX-License-Identifier: LGPL-2.1-only */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "xl.h"
#include "xl_opts.h"
#include "xl_stock.h"

struct xl_globals xl_globals;

static const char remus_help[] =
    "[options] DOMAIN HOST\n"
    "       xl remus --stop|--status|--promote|--discard|--recover|--attend DOMAIN\n"
    "\n"
    "Keeps a live twin of DOMAIN on HOST, until it is stopped or HOST is lost.\n"
    "\n"
    "  -i MS                  time between checkpoints (default 200)\n"
    "  -s SSHCMD              command to reach HOST with (default ssh); '': HOST is the command\n"
    "  -e                     do not wait in the background for the twin's death after failover\n"
    "  -F                     permit what is unsafe: -b, -n, -d, a HOST without xentwin\n"
    "  -b                     checkpoints go to /dev/null (needs -F)\n"
    "  -n                     do not hold network output (needs -F)\n"
    "  -d                     the guest's disks are not replicated (needs -F)\n"
    "  -u, -N SCRIPT          accepted as in Xen 4.17, without effect\n"
    "  --limit-ms MS          silence that means the peer is gone, 200..600000 (default 3000)\n"
    "  --on-link-loss SIDE    who goes on when the link is lost: primary (default) or backup\n"
    "  --arbiter CMD          exit 0 of CMD permits to go on; decides instead of the rule alone\n"
    "  --netbuf-limit BYTES   most output held, K, M or G may follow (default 32M)\n"
    "  --compress WORD        how pages are sent: auto (default), none, delta or lz4\n"
    "  --compress-cache BYTES most memory for copies to compare with (default 1/4 of free)\n"
    "  --stats FILE           one JSON object per checkpoint\n"
    "  --max-checkpoints N    end after N checkpoints\n"
    "  --twin auto|warm|cold   complete the twin's domain at once, or at failover (default auto)\n"
    "  --self-name, --peer-name NAME   this host and HOST, for the arbiter\n"
    "\n"
    "  --stop DOMAIN          end the protection; the guest runs on here, no twin is started\n"
    "  --status [DOMAIN]      what is protected or received here\n"
    "  --promote DOMAIN       on the backup, link lost: start the twin\n"
    "  --discard DOMAIN       link lost: drop the twin (backup), or the copy that was\n"
    "                         stopped here because its twin runs (primary)\n"
    "  --recover DOMAIN       let a guest that was left stopped or held go on here\n"
    "  --attend DOMAIN        after a crash of xl remus: look after the guest's poweroff and "
    "reboot\n"
    "\n"
    "Exit status: 0 ended on purpose, 1 failed or HOST lost, 2 bad usage. See xl-remus(1).\n";

static const char migrate_help[] =
    "[options] DOMAIN HOST\n"
    "\n"
    "Moves a running guest to HOST, with xentwin's memory engine at this end.\n"
    "\n"
    "  -C CONFIG   send this configuration instead of the guest's\n"
    "  -s SSHCMD   command to reach HOST with (default ssh); '': HOST is the command\n"
    "  -e          do not wait in the background for the guest's death at HOST\n"
    "  -p          leave the guest paused at HOST\n"
    "  -D          keep the domain number\n"
    "  -F          stay in the foreground at HOST\n"
    "  --debug     send all pages again at the end and compare\n"
    "  --live      accepted, without effect: migration is live\n"
    "  --max-rounds N        copy again what changed at most N times, 0..1000 (default 5)\n"
    "  --max-downtime-ms MS  give up when the rest would take longer; DOMAIN runs on here\n"
    "  --rate MB             send at most so many MB/s while DOMAIN runs\n"
    "\n"
    "Exit status: 0 moved, 1 failed (the guest runs here), 2 bad usage. See xl-migrate(1).\n";

static const char migrate_receive_help[] =
    "[options]\n"
    "\n"
    "Internal: the other end of xl migrate and xl remus, on standard input and output.\n";

static const char save_help[] =
    "[options] DOMAIN FILE [CONFIG]\n"
    "\n"
    "Saves a guest's state into FILE, with xentwin's memory engine.\n"
    "\n"
    "  -c   let the guest run on after the save\n"
    "  -p   leave the guest paused after the save\n"
    "  -D   keep the domain number on restore\n"
    "\n"
    "Exit status: 0 saved, 1 failed (the guest runs on, no FILE is left), 2 bad usage.\n";

static const char restore_help[] = "[options] [CONFIG] FILE\n"
                                   "\n"
                                   "Restores a guest from FILE, with xentwin's memory engine.\n"
                                   "\n"
                                   "  -F   stay in the foreground\n"
                                   "  -c   connect to the console\n"
                                   "  -p   leave the guest paused\n"
                                   "  -d   show debug messages\n"
                                   "  -e   do not wait in the background for the guest's death\n"
                                   "  -V   connect a VNC viewer, -A with the password\n"
                                   "\n"
                                   "Exit status: 0 restored, 1 failed, 2 bad usage.\n";

static const struct xl_command commands[] = {
    {"remus", xl_main_remus, "Protect a guest: keep its live twin on another host", remus_help},
    {"migrate", xl_main_migrate, "Move a running guest to another host", migrate_help},
    {"migrate-receive", xl_main_migrate_receive, NULL, migrate_receive_help},
    {"save", xl_main_save, "Save a guest's state into a file", save_help},
    {"restore", xl_main_restore, "Restore a guest from a file", restore_help},
};

#define NR_COMMANDS (sizeof(commands) / sizeof(commands[0]))

const struct xl_command *xl_command_find(const char *name)
{
    size_t i;

    for (i = 0; i < NR_COMMANDS; i++) {
        if (!strcmp(commands[i].name, name)) return &commands[i];
    }
    return NULL;
}

void xl_command_help(const struct xl_command *command)
{
    printf("Usage: xl %s %s", command->name, command->help);
}

static void print_summary(void)
{
    size_t i;

    printf("\nxentwin %s adds or replaces:\n\n", XENTWIN_VERSION);
    for (i = 0; i < NR_COMMANDS; i++) {
        if (commands[i].summary) printf(" %-19s %s\n", commands[i].name, commands[i].summary);
    }
    printf("\nAll other subcommands are those of %s.\n", xl_stock_path());
}

int xl_help(char **argv, const char *word)
{
    const struct xl_command *command = word ? xl_command_find(word) : NULL;
    int status = 0;
    pid_t pid;

    if (command) {
        xl_command_help(command);
        return XL_DONE;
    }
    if (word) return xl_stock_exec(argv);
    if (!xl_stock_path()) return XL_FAILED;
    pid = fork();
    if (pid == 0) _exit(xl_stock_exec(argv));
    if (pid < 0 || waitpid(pid, &status, 0) < 0) return xl_fail(NULL, "cannot start the stock xl");
    print_summary();
    return WIFEXITED(status) ? WEXITSTATUS(status) : XL_FAILED;
}
