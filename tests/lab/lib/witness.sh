# SPDX-License-Identifier: LGPL-2.1-only
# shellcheck shell=bash
witness_start() { :; }
witness_stop() { :; }
