# SPDX-License-Identifier: LGPL-2.1-only
# shellcheck shell=bash
# The texts behind --help.

help_overview() {
    cat <<'EOF'
usage: lab [--lab NAME] COMMAND ...

Two real Xen hosts, A and B, in QEMU, with a witness host W, a public LAN and a
private replication link, all in network namespaces of their own.

  image                    build the dom0 image unless it is cached
  up                       start both hosts, return when they answer
  down                     stop everything, leave nothing behind
  status                   what runs, what is cut
  exec HOST CMD...         run a command in dom0 of A or B
  push [TREE]              install the product in both dom0s
  kill | start HOST        pull the plug of a host; boot it again
  pause | resume HOST      freeze a host; let it go on
  cut | heal LINK          drop all packets of a link silently; undo it
  log HOST                 the console log of a host
  clock HOST               how dom0's clocks differ from this machine's
  guest ACTION ...         start, stop, wait, ip, config, console
  kv ARGS...               the test guest's client, run on the public LAN
  netns CMD...             run a command on the public LAN
  capture start|stop FILE  record packets at the public ports of both hosts

'lab COMMAND --help' says more. --lab NAME or LAB=NAME chooses one of several
labs (default: xtlab). XENTWIN_CACHE moves the cache (default: .cache in the repo).
LAB_CPUS gives each host so many processors (default: 1).
EOF
}

help_image() {
    cat <<'EOF'
usage: lab image
Builds hypervisor, kernel, initrd and root disk of the hosts from Debian packages
and prints the folder. It is built again when the package list or the build
scripts change. Needs root and a Debian mirror that apt can reach.
EOF
}

help_up() {
    cat <<'EOF'
usage: lab [--lab NAME] up [--lab NAME]
Starts hosts A and B, the networks and the witness, and returns when both hosts
take commands. Builds the image first if needed. Clears what a crashed lab of the
same name left. Does nothing if the lab is up. Ctrl-C takes everything down again.
EOF
}

help_down() {
    cat <<'EOF'
usage: lab [--lab NAME] down [--all]
Ends every process of the lab, removes its namespaces and files. The console logs
of both hosts stay in .cache/lab/log. --all does this for every lab of this cache.
EOF
}

help_status() {
    cat <<'EOF'
usage: lab [--lab NAME] status
Prints whether the lab is up, the state of each host and which ports are cut.
EOF
}

help_exec() {
    cat <<'EOF'
usage: lab [--lab NAME] exec [-t] [--timeout S] HOST CMD...
Runs a command as root in dom0 of HOST (A or B; W is the witness) and passes on stdin, stdout, stderr
and the exit status (255: the host did not answer; 124: --timeout S seconds passed).
One argument is a command line for the remote shell, several are separate words.
It uses a link of its own and works while 'repl' and 'pub' are cut. -t asks for a terminal.
EOF
}

help_push() {
    cat <<'EOF'
usage: lab [--lab NAME] push [TREE]
Without TREE runs 'make install' with prefix=/usr/local into a staging folder that
the hosts share, then installs that tree in both dom0s. With TREE installs that
tree. A host that is not running is skipped: push again after 'lab start'.
EOF
}

help_kill() {
    cat <<'EOF'
usage: lab [--lab NAME] kill HOST
Kills the QEMU of HOST with SIGKILL: the host is gone without a word.
EOF
}

help_start() {
    cat <<'EOF'
usage: lab [--lab NAME] start HOST
Boots a killed host again with a fresh disk. Cut links stay cut.
EOF
}

help_pause() {
    cat <<'EOF'
usage: lab [--lab NAME] pause HOST
Stops the QEMU of HOST with SIGSTOP: the whole host stands still.
EOF
}

help_resume() {
    cat <<'EOF'
usage: lab [--lab NAME] resume HOST
Lets a paused host go on.
EOF
}

help_cut() {
    cat <<'EOF'
usage: lab [--lab NAME] cut LINK
Drops every packet of LINK, both ways, without a carrier loss or a reset.
LINK: repl (between A and B), pub (A and B from the LAN), repl:A, repl:B, pub:A,
pub:B, pub:client, witness (W from everybody), pub:W, repl:W.
EOF
}

help_heal() {
    cat <<'EOF'
usage: lab [--lab NAME] heal LINK
Undoes 'lab cut LINK'.
EOF
}

help_log() {
    cat <<'EOF'
usage: lab [--lab NAME] log HOST
Prints the console log of HOST: hypervisor, kernel, panics. Also after 'lab down'.
EOF
}

help_clock() {
    cat <<'EOF'
usage: lab [--lab NAME] clock HOST
Prints what to add to dom0's CLOCK_REALTIME and CLOCK_MONOTONIC to get this machine's
CLOCK_REALTIME (which captures use), and how far off that may be, all in nanoseconds:
  realtime N monotonic N uncertainty N
'lab kv clock' prints this machine's CLOCK_MONOTONIC and CLOCK_REALTIME.
EOF
}

help_guest() {
    cat <<'EOF'
usage: lab [--lab NAME] guest start HOST TYPE [--name N] [--mem MB] [--kbps N] [--timeout S]
                                [--vcpus N] [--maxvcpus N] [--vga]
       lab guest stop HOST NAME        destroy the domain
       lab guest wait NAME [--timeout S]   wait until it answers on the LAN
       lab guest ip NAME               its address
       lab guest config TYPE [--name N] [--mem MB] [--kbps N]   its xl configuration
       lab guest console HOST NAME     its console (Ctrl-] leaves)
TYPE: pvh, hvm (with PV drivers), hvm-nopv (without, e1000), pv. The name is the type
unless --name says otherwise; address and MAC follow from the name. --kbps limits what
the guest sends over a PV NIC; --vga gives an hvm guest a graphics card with 16 MB. 'start' returns
when the guest answers on port 7000 (TCP and UDP, one request per line):
  SET k v | GET k | COUNT | DUMP | TICK | ID | CHECK | QUIT | POWEROFF | REBOOT
  DIRTY pages_per_s [set_pages] | CHATTER ms (0: none) | SCREEN lines_per_s | SCREEN SUM
CHECK verifies the memory; SCREEN draws in the graphics card's memory, SCREEN SUM gives the
cksum of the picture, as RGB octets; ID differs after a restart but not after a failover.
EOF
}

help_kv() {
    cat <<'EOF'
usage: lab [--lab NAME] kv load|verify|cmd|gap ...
Runs the test guest's client in the client's namespace:
  kv load IP --log FILE [--rate N] [--seconds S] [--udp]   write, log what is acknowledged
  kv verify IP --log FILE     read it all back: 'acknowledged N lost N', exit 1 if any
  kv cmd IP 'LINE'            one request, one answer
  kv gap --log FILE           longest time without an acknowledgement
  kv clock                    CLOCK_MONOTONIC (used in FILE) and CLOCK_REALTIME, in ns
EOF
}

help_netns() {
    cat <<'EOF'
usage: lab [--lab NAME] netns CMD...
Runs CMD in the client's namespace, on the public LAN (192.0.2.1, fd00:7477:1::1).
EOF
}

help_capture() {
    cat <<'EOF'
usage: lab [--lab NAME] capture start FILE [FILTER]
       lab [--lab NAME] capture stop FILE
Records the public port of each host into FILE.A and FILE.B (pcap, nanoseconds) as
the packets pass the switch. FILTER is a pcap filter expression.
EOF
}
