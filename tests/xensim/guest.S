/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The kernel that a toolstack loads to get xensim's synthetic guest: an ELF file that names a PVH entry point. xensimd knows it by the
 * text there, and takes the guest's SPEC from the command line.
 */
        .text
        .globl  _start
_start:
        .ascii  "XENSIM SYNTHETIC GUEST\n"
        .balign 4096, 0

        .section .note.Xen, "a", @note
        .balign 4
        .long   4               /* length of the owner's name */
        .long   4               /* length of the value */
        .long   18              /* XEN_ELFNOTE_PHYS32_ENTRY */
        .asciz  "Xen"
        .long   _start

        .section .note.GNU-stack, "", @progbits
