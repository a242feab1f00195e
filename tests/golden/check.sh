#!/usr/bin/env bash
# Whether every instruction set gives the bits of golden.txt, on 1 thread and on 3: those of this machine, and arm64's
# NEON, cross-compiled and run under qemu. Slow to build (a minute or two), in build/golden.
#
# bash tests/golden/check.sh                  all of it
# bash tests/golden/check.sh --native         this machine's instruction sets alone
# bash tests/golden/check.sh --update         write golden.txt anew, from avx2 on 1 thread, and then check the others
# bash tests/golden/check.sh --program FILE   with FILE, the target "golden" of a build, for this machine's
#
# Exits with 0: the same bits everywhere; 1: they differ, or a build or a run failed; 2: an option it does not know;
# 77: what could be checked is right, but tools are missing for the rest, which it names.
set -euo pipefail
here=$(realpath "$(dirname "$0")")
native_only=no update=no program=
while [ $# -gt 0 ]; do
  case $1 in
    --native) native_only=yes ;;
    --update) update=yes ;;
    --program) program=$(realpath -e "${2-}") && shift ;;
    *) awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$here/check.sh" >&2 && exit 2 ;;
  esac
  shift
done

cd "$here/../.."
golden=tests/golden/golden.txt build=build/golden

works() { "$1" --version > /dev/null 2>&1; }
fail() { printf 'golden: %s\n' "$1" >&2 && exit 1; }
not_checked() { printf 'golden: NOT CHECKED: %s\n' "$1" >&2 && exit 77; }

works cmake && works ninja || not_checked "anything, for cmake or ninja is missing (pip install cmake ninja)"
works "${CXX:-c++}" || works g++ || works clang++ ||
  not_checked "anything, for there is no C++ compiler (Debian: apt-get install g++)"

# compile FOLDER OPTIONS...: the program, in build/golden/FOLDER
compile() {
  local folder=$build/$1 log=$build/$1.log
  mkdir -p "$folder"
  printf 'golden: building %s\n' "$folder/golden"
  { cmake -S . -B "$folder" -G Ninja -DCMAKE_MAKE_PROGRAM="$(command -v ninja)" -DCMAKE_BUILD_TYPE=Release \
    -DSKBUILD_PROJECT_VERSION=0 -DNORMKIT_GOLDEN=ON -DNORMKIT_THREADS=std "${@:2}" &&
    cmake --build "$folder" --target golden; } > "$log" 2>&1 || { tail -n 40 "$log" >&2 && fail "the build failed ($log)"; }
}

failed=no
# compare ISA COMMAND...: what COMMAND prints for ISA, with golden.txt
compare() {
  local isa=$1 threads result
  for threads in 1 3; do
    result=$build/$isa-$threads.txt
    "${@:2}" "$isa" "$threads" > "$result" || fail "$isa, $threads threads: the run failed"
    # A line is a hash of 16 digits and the name of a case.
    if awk -v what="$isa, threads: $threads" '
        { hash = substr($0, 1, 16); name = substr($0, 18) }
        FNR == NR { expected[name] = hash; ++cases; next }
        { got[name] = hash }
        !(name in expected) { ++wrong; lines[wrong] = name ": not in golden.txt (--update)"; next }
        hash != expected[name] { ++wrong; lines[wrong] = name ": expected " expected[name] ", got " hash }
        END {
          for (name in expected) if (!(name in got)) { ++wrong; lines[wrong] = name ": in golden.txt alone (--update)" }
          if (!wrong) { printf "golden: %s: the same bits in all %d cases\n", what, cases; exit 0 }
          printf "golden: %s: DIFFERENT in %d of %d cases\n", what, wrong, cases
          for (i = 1; i <= wrong && i <= 40; ++i) print "  " lines[i]
          if (wrong > 40) printf "  and %d more\n", wrong - 40
          exit 1
        }' "$golden" "$result"; then continue; fi
    failed=yes
  done
}

if [ -z "$program" ]; then
  compile native
  program=$build/native/golden
fi
mkdir -p "$build"
# The baseline emulates the fused multiply-add, and is not promised to give these bits.
isas=$("$program" | grep -vx baseline || true)
if [ "$update" = yes ]; then
  grep -qx avx2 <<< "$isas" || fail "golden.txt is made with avx2, which this machine does not have"
  "$program" avx2 1 > "$build/new.txt" || fail "avx2: the run failed"
  mv "$build/new.txt" "$golden"
  printf 'golden: wrote %s\n' "$golden"
fi
[ -s "$golden" ] || fail "$golden is missing or empty (--update)"
for isa in $isas; do
  compare "$isa" "$program"
done

missing=
if [ "$native_only" = no ] && ! grep -qx neon <<< "$isas"; then
  works aarch64-linux-gnu-g++ || missing+=" g++-aarch64-linux-gnu"
  qemu=
  for name in qemu-aarch64-static qemu-aarch64; do if works $name; then qemu=$name; fi; done
  [ -n "$qemu" ] || missing+=" qemu-user"
  if [ -z "$missing" ]; then
    (unset CXX CXXFLAGS LDFLAGS && compile arm64 -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
      -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++)
    compare neon "$qemu" -L /usr/aarch64-linux-gnu "$build/arm64/golden"
  fi
fi
[ "$failed" = no ] || exit 1
[ -z "$missing" ] || not_checked "arm64, for tools are missing (Debian: apt-get install$missing)"
if [ -z "$isas" ] && [ "$native_only" = yes ]; then not_checked "anything, for this machine has the baseline alone"; fi
