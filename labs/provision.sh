#!/bin/sh
# Makes this machine ready for the labs: system packages, a virtual environment, the package. Safe to run again and
# again; does nothing that is done already. The Makefile and the Vagrantfile both call it.
#
#   provision.sh [--dev] [--venv DIR]  system packages, virtual environment (.venv), the package; --dev: and the tools
#                                      that test and check it
#   provision.sh --vm lab              a virtual machine that runs labs: the commands on everybody's path as well
#   provision.sh --vm NODE             a virtual machine that IS a node of topology `pair`: addresses, routes, sysctls,
#                                      and for a member the service fwnode@NODE
#
# Root is needed for missing system packages alone (through sudo where it is there), and for --vm.
set -eu

PACKAGES="python3 python3-venv python3-dev gcc libnetfilter-queue-dev libnfnetlink-dev iptables nftables iproute2 util-linux \
tcpdump iperf3 nmap curl procps iputils-ping"
APT_OPTIONS="-o Acquire::Retries=0"
VM_VENV=/opt/fwpair-lab

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
venv=$root/.venv
vm=
dev=

say() { printf 'provision: %s\n' "$*"; }
fail() { printf 'provision: %s\n' "$*" >&2; exit 4; }
usage() { printf 'provision: %s\nusage: provision.sh [--dev] [--venv DIR] [--vm lab|NODE]\n' "$*" >&2; exit 2; }

while [ $# -gt 0 ]; do
    case $1 in
        --dev) dev=yes; shift ;;
        --venv) [ $# -ge 2 ] || usage "--venv needs a directory"; venv=$2; shift 2 ;;
        --vm) [ $# -ge 2 ] || usage "--vm needs 'lab' or the name of a node"; vm=$2; venv=$VM_VENV; shift 2 ;;
        -h|--help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) usage "unknown argument $1" ;;
    esac
done
case $venv in /*) ;; *) venv=$(pwd)/$venv ;; esac
case $vm in
    '') ;;
    *[!a-z0-9]*) usage "--vm $vm: 'lab' or the name of a node, such as fw1" ;;
    *) [ "$(id -u)" -eq 0 ] || fail "--vm changes the machine itself: run it as root, in the virtual machine" ;;
esac

# -- system packages ---------------------------------------------------------------------------------------------------

missing_packages() {
    for package in $PACKAGES; do
        # shellcheck disable=SC2016  # ${…} is dpkg-query's own
        status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
        [ "$status" = installed ] || printf '%s ' "$package"
    done
}

install_packages() {
    if ! command -v dpkg-query >/dev/null 2>&1; then
        say "not a Debian-like system; these have to be there already, by whatever names: $PACKAGES"
        return 0
    fi
    missing=$(missing_packages)
    [ -n "$missing" ] || return 0
    by_hand="as root: apt-get install ${missing% }"
    as_root=
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null 2>&1 || fail "missing system packages, and there is no sudo; $by_hand"
        say "sudo is needed to install $missing"
        sudo true || fail "missing system packages, and sudo was refused; $by_hand"
        as_root=sudo
    fi
    say "installing $missing"
    # What apt knows already may do: one source that does not answer, or has moved, must not stop the others.
    # shellcheck disable=SC2086  # word lists
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get $APT_OPTIONS update -q ||
        say "apt-get update complained (see above); going on with the lists that are there"
    # shellcheck disable=SC2086
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get $APT_OPTIONS install -y -q --no-install-recommends $missing ||
        fail "apt-get could not install them (is this machine offline, or a source in /etc/apt stale?); $by_hand"
}

# -- virtual environment -----------------------------------------------------------------------------------------------

# Prints the real interpreter behind a command where it will do: 3.11 to 3.14 with venv. Shims of version managers
# answer by the program they stand for.
usable_python() {
    "$1" -c 'import sys, venv, ensurepip
if not (3, 11) <= sys.version_info[:2] <= (3, 14): sys.exit(1)
print(sys.executable)' 2>/dev/null
}

find_python() {
    if [ -n "${FWPAIR_PYTHON:-}" ]; then
        usable_python "$FWPAIR_PYTHON" || fail "FWPAIR_PYTHON=$FWPAIR_PYTHON is no Python 3.11 to 3.14 with venv"
        return 0
    fi
    for candidate in /usr/bin/python3 python3.14 python3.13 python3.12 python3.11 python3; do
        usable_python "$candidate" && return 0
    done
    fail "no Python 3.11 to 3.14 with venv; install one and name it in FWPAIR_PYTHON"
}

# What the environment was filled from: another checkout or other versions make another stamp.
stamp() {
    { printf '%s\n' "$root"; cat "$root/pyproject.toml" "$root/constraints.txt"; } | sha256sum | cut -d' ' -f1
}

# An environment outlives neither the removal of its Python nor an upgrade to another version of it.
environment_works() {
    "$venv/bin/python" -c 'import pip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null
}

# Filled from this checkout, and with the tools if those are wanted.
environment_is_filled() {
    [ -x "$venv/bin/fwlab" ] || return 1
    { read -r filled_from && read -r with; } 2>/dev/null <"$venv/.provisioned" || return 1
    [ "$filled_from" = "$(stamp)" ] || return 1
    [ -z "$dev" ] || [ "$with" = tools ] || return 1
    "$venv/bin/python" -P -c 'import labs, netfilterqueue' 2>/dev/null
}

make_environment() {
    if environment_works; then
        ! environment_is_filled || return 0
        say "bringing $venv up to date"
    else
        if [ -e "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ]; then
            fail "$venv is there and is no virtual environment; remove it, or choose another with --venv"
        fi
        python=$(find_python)
        say "making $venv with $python"
        "$python" -m venv --clear "$venv" || fail "$python could not make $venv"
    fi
    say "installing Python packages with pip; this takes about half a minute"
    # By its environment, so that the pip that fetches what builds the package does not try for longer.
    PIP_RETRIES=2 "$venv/bin/python" -m pip install --disable-pip-version-check -c "$root/constraints.txt" \
        -e "$root${dev:+[dev]}" ||
        fail "pip could not install the package (see above; it needs a package index: is this machine offline?)"
    printf '%s\n%s\n' "$(stamp)" "${dev:+tools}" >"$venv/.provisioned"
}

# -- virtual machines --------------------------------------------------------------------------------------------------

link_commands() {
    for command in fwlab fwctl fwnode cphaprob fw cpstop cpstart clusterXL_admin; do
        ln -sfn "$venv/bin/$command" "/usr/local/bin/$command"
    done
}

# The interfaces of this machine by the addresses that Vagrant gave them: "--interface lan=eth1 --interface …".
interface_options() {
    "$venv/bin/fwlab" config "$1" --network |
        sed -n 's/^ip -4 address replace \([0-9.]*\)\/[0-9]* dev \([a-z0-9]*\)$/\1 \2/p' |
        while read -r address switch; do
            device=$(ip -o -4 address show | awk -v address="$address/" 'index($4, address) == 1 { print $2; exit }')
            [ -n "$device" ] || fail "no interface of this machine has $address, the address of $1 on $switch"
            printf -- '--interface %s=%s ' "$switch" "$device"
        done
}

install_node() {
    options=$(interface_options "$1") || exit 4
    [ -n "$options" ] || fail "topology pair has no node $1"
    mkdir -p /etc/fwnode
    # shellcheck disable=SC2086  # option list
    "$venv/bin/fwlab" config "$1" --network $options >/etc/fwnode/network.sh
    "$venv/bin/fwlab" config "$1" --sysctl >/etc/sysctl.d/90-fwpair.conf
    cat >/etc/systemd/system/fwpair-network.service <<UNIT
[Unit]
Description=Addresses and routes of the firewall pair lab
After=network-online.target
Wants=network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/sbin/sysctl -q -p /etc/sysctl.d/90-fwpair.conf
ExecStart=/bin/sh -e /etc/fwnode/network.sh

[Install]
WantedBy=multi-user.target
UNIT
    cat >/etc/systemd/system/fwnode@.service <<UNIT
[Unit]
Description=Firewall cluster member %i
After=fwpair-network.service
Requires=fwpair-network.service

[Service]
ExecStartPre=$venv/bin/fwnode --check --config /etc/fwnode/%i.yaml
ExecStart=$venv/bin/fwnode --config /etc/fwnode/%i.yaml --state /var/lib/fwnode
StateDirectory=fwnode
RuntimeDirectory=fwpair
LimitNOFILE=20000
# A member that was killed stays dead: that is what a lab wants to see.
Restart=no

[Install]
WantedBy=multi-user.target
UNIT
    systemctl daemon-reload
    systemctl enable --quiet fwpair-network.service
    systemctl restart fwpair-network.service
    # shellcheck disable=SC2086
    if "$venv/bin/fwlab" config "$1" $options >"/etc/fwnode/$1.yaml.new" 2>/dev/null; then
        # An edited configuration (a release, a policy) survives the next provisioning.
        [ -e "/etc/fwnode/$1.yaml" ] || mv "/etc/fwnode/$1.yaml.new" "/etc/fwnode/$1.yaml"
        systemctl enable --quiet "fwnode@$1.service"
        systemctl start "fwnode@$1.service"
    fi
    rm -f "/etc/fwnode/$1.yaml.new"
}

install_packages
make_environment
if [ -n "$vm" ]; then
    link_commands
    [ "$vm" = lab ] || install_node "$vm"
fi
