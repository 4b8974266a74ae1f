#!/usr/bin/env bash
# The command duallora and files: it goes on with the run it has begun and no other, loses no file of the user's, and
# names before it works what could not be written in the end.
# usage: test_command_files.sh PATH_TO_DUALLORA BACKBONE.safetensors
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
export LC_ALL=C

duallora=$1
backbone=$2
. "$(dirname "$0")/command_support.sh"

# data FOLDER SEED NAME...: training and test images of classes with these names
data() {
  local folder=$1 seed=$2
  shift 2
  mkdir -p "$folder"
  cifar "$folder/train.bin" 0 $# 12 "$seed"
  cifar "$folder/test.bin" 0 $# 5 $((seed + 100))
  printf '%s\n' "$@" >"$folder/batches.meta.txt"
}

# interrupted SIGNAL ARGUMENT...: stops a run as soon as it has written $snapshot
interrupted() {
  local signal=$1 tries=0
  shift
  rm -f "$snapshot"
  "$duallora" "$@" >output 2>&1 </dev/null &
  pid=$!
  until [ -e "$snapshot" ] || [ $((tries += 1)) -gt 3000 ] || ! kill -0 $pid 2>/dev/null; do sleep 0.02; done
  kill "-$signal" $pid || fail 'the run ended before it could be interrupted'
  got=0
  { wait $pid; } 2>/dev/null || got=$?
}

learn=(learn --backbone "$backbone" --threads 2 --quiet)
data X 1 a b c d
data Y 2 u v w x
data Z 3 a b c d

# ---- a snapshot goes on with its own run alone ----

snapshot=m.safetensors.snapshot
long=("${learn[@]}" --tasks 2 --batch-size 8 --epochs 12 --snapshot-steps 2 --out m.safetensors)
interrupted INT "${long[@]}" --train X --test X
same "$got" 130 'exit code after an interrupt'
grep -q 'the same command goes on from there$' output || fail 'an interrupted run does not say how to go on'
cp $snapshot kept

other() { # other PATTERN ARGUMENT...: a run that is not the one of the snapshot
  local pattern=$1
  shift
  expect 1 "another run: .*$pattern.*--restart" "${long[@]}" "$@"
  cmp -s kept $snapshot || fail "a refused run changed the snapshot: $*"
  ! grep -q 'goes on from there' output || fail "a refused run is told to go on: $*"
}
other "class '[u-x]' has the place of its class '[a-d]'" --train Y --test Y
other '--tasks is not what it was' --train X --test X --tasks 4
other '--tasks is not what it was' --train X --test X --tasks 1
other '--batch-size is not' --train X --test X --batch-size 7
other '--seed is not' --train X --test X --seed 1
other '--preset is not' --train X --test X --preset paper
other '--rank-orthogonal is not' --train X --test X --instant
other '--train has other images' --train Z --test X
other '--test has other images' --train X --test Z
other '--test has 0 images, and had 20' --train X
other '--train has 24 images, and had 48' --train X --test X --images-per-class 6
mkdir fewer
cifar fewer/train.bin 0 3 12 1
cifar fewer/test.bin 0 4 5 101
cp X/batches.meta.txt fewer/
other "class.*'[a-d]'" --train fewer --test X --allow-missing-test-classes

expect 0 '' "${learn[@]}" --train Y --epochs 1 --out begin.safetensors
other 'did not --resume' --train X --test X --resume begin.safetensors

# The description goes with the snapshot and stays out of the checkpoint; where files lie does not matter.
"$duallora" inspect $snapshot >output
grep -q 'note.duallora.run' output || fail 'the snapshot does not say of which run it is'
cp -r X elsewhere
expect 0 '' "${long[@]}" --train elsewhere --test "$scratch/elsewhere/" --threads 1
"$duallora" inspect m.safetensors >output
! grep -q 'note\.' output || fail 'the description of the run is left in the checkpoint'
[ ! -e $snapshot ] || fail 'a run that is done left its snapshot'

# One that does not say so: of an earlier version.
cp begin.safetensors other.safetensors.snapshot
expect 1 'does not say of which run it is.*--restart' "${learn[@]}" --train X --out other.safetensors
expect 0 '' "${learn[@]}" --train X --epochs 1 --out other.safetensors --restart
echo '{}' >other2.safetensors.snapshot
expect 2 'other2.safetensors.snapshot exists and is no checkpoint' "${learn[@]}" --train X --out other2.safetensors
expect 2 'other2.safetensors.snapshot exists' "${learn[@]}" --train X --out other2.safetensors --restart

# Going on from a checkpoint: by its content.
snapshot=grown.safetensors.snapshot
cp begin.safetensors first.safetensors
grow=("${learn[@]}" --train X --epochs 40 --snapshot-steps 2 --out grown.safetensors)
interrupted INT "${grow[@]}" --resume first.safetensors
expect 0 '' "${learn[@]}" --train Z --epochs 1 --out second.safetensors
expect 1 'resume is another checkpoint' "${grow[@]}" --resume second.safetensors
expect 1 'resume is not given' "${grow[@]}"
mv first.safetensors moved.safetensors
expect 0 '' "${grow[@]}" --resume moved.safetensors

# ---- what is finished of a snapshot ----

snapshot=s.safetensors.snapshot
expect 0 '' "${learn[@]}" --train X --test X --epochs 1 --out s0.safetensors --json s0.json
two=("${learn[@]}" --train Y --epochs 2000 --snapshot-steps 3 --resume s0.safetensors --out s.safetensors)
for signal in HUP TERM; do
  interrupted $signal "${two[@]}"
  same "$got" 130 "exit code after SIG$signal"
done
use=(--backbone "$backbone" --threads 1)
for from in s0.safetensors $snapshot; do
  expect 0 '' evaluate "${use[@]}" --checkpoint "$from" --test X --json "$from.json" --routing early
  mapfile -t last <<<"$(sed 's/.*is the snapshot.*//' output | sed '/^$/d')"
  same "${#last[@]}" 11 "lines of evaluate on $from" # one task: its row, and the figures
done
grep -q "$snapshot is the snapshot of a run in the middle of task 1, which is left out; 1 task is finished" output ||
  fail 'evaluate does not say that a task of the snapshot is open'
for key in last_accuracy task_accuracy num_images num_tasks ece; do
  same "$(value $snapshot.json $key)" "$(value s0.safetensors.json $key)" "$key of a snapshot"
done
expect 0 '' export --data X/train.bin --out some --count 4
mapfile -t some < <(find some -name '*.png' | sort)
"$duallora" predict "${use[@]}" --checkpoint s0.safetensors "${some[@]}" >predicted.before 2>/dev/null
"$duallora" predict "${use[@]}" --checkpoint $snapshot "${some[@]}" >predicted 2>said
cmp -s predicted.before predicted || fail 'a snapshot predicts otherwise than the checkpoint before it'
grep -q 'in the middle of task 1' said || fail 'predict does not say that a task of the snapshot is open'
cp $snapshot away.safetensors
expect 1 '--resume: away.safetensors is the snapshot of a run in the middle' "${learn[@]}" --train X \
  --resume away.safetensors --out t.safetensors
expect 2 "--resume: $snapshot is the snapshot of --out" "${learn[@]}" --train Y --resume $snapshot --out s.safetensors
# Of a run without a finished task there is nothing to use.
snapshot=n0.safetensors.snapshot
interrupted INT "${learn[@]}" --train Y --epochs 2000 --snapshot-steps 3 --out n0.safetensors
expect 1 'n0.*has not finished learning a task' evaluate "${use[@]}" --checkpoint $snapshot --test Y
expect 1 'n0.*has not finished learning a task' predict "${use[@]}" --checkpoint $snapshot "${some[0]}"

# ---- figures: shares in [0, 1], and none across different images ----

expect 0 '' "${learn[@]}" --train X --test X --tasks 2 --epochs 1 --out f.safetensors --json f.json
awk -v a="$(value f.json last_accuracy)" 'BEGIN { exit !(a > 0.3 && a <= 1) }' || fail 'last_accuracy is no share'
tr -d '[:space:]' <f.json | grep -qE '"accuracy_matrix":\[\[(0\.[0-9]*|1|0),null\],' || fail 'the matrix has no shares'
tr -d '[:space:]' <f.json | grep -qE '"last_accuracy":(0\.[0-9]*|1|0)[,}].*"last_accuracy":(0\.[0-9]*|1|0)[,}]' ||
  fail 'the accuracies after each task are no shares'
expect 0 'average accuracy  *[0-9.]* %' evaluate "${use[@]}" --checkpoint f.safetensors --test X --json g.json
grep -q 'forgetting  *-\{0,1\}[0-9.]* %' output || fail 'forgetting is not told'
for key in average_accuracy forgetting backward_transfer; do
  same "$(value g.json $key)" "$(value f.json $key)" "$key after loading"
done
expect 0 'average accuracy  *-$' evaluate "${use[@]}" --checkpoint f.safetensors --test Z --json g.json
grep -q 'forgetting  *-$' output || fail 'forgetting is told across different images'
for key in average_accuracy forgetting backward_transfer; do
  same "$(value g.json $key)" null "$key across different images"
done

# ---- options are the library's to judge, before any work ----

expect 2 '--held-out is 0.9, expected at least 0 and at most 0.5' learn --backbone none --train none --out o --held-out 0.9
expect 2 '--momentum is 1, expected at least 0 and at most 0.9999999' learn --backbone none --train none --out o --momentum 1
expect 2 '--random-features is 100000' learn --backbone none --train none --out o --random-features 100000
expect 2 '--unknown-quantile' evaluate --backbone none --checkpoint none --test none --unknown-quantile 2
expect 1 '--rank-orthogonal is 5000, expected at most embed_dim' "${learn[@]}" --train none --out o --rank-orthogonal 5000
expect 1 '--first-block is 60, the model has 6' "${learn[@]}" --train none --out o --first-block 60

# ---- folders of image files, by their names and sizes ----

expect 0 '' export --data X/train.bin --out pictures
snapshot=p.safetensors.snapshot
photos=("${learn[@]}" --train pictures --epochs 40 --snapshot-steps 1 --out p.safetensors)
interrupted INT "${photos[@]}"
cp $snapshot kept
mv pictures/a/000000.png pictures/a/000001.png
expect 1 'another run: --train has other images' "${photos[@]}"
mv pictures/a/000001.png pictures/a/000000.png
cp pictures/a/000000.png saved.png
printf 'x' >>pictures/a/000000.png
expect 1 'another run: --train has other images' "${photos[@]}"
# Of the same name and size, with other pixels: found when the images are read.
cp saved.png pictures/a/000000.png
first=$(find pictures -name '*.png' | sort | sed -n 1p)
python=$(command -v python3 || true)
if [ -n "$python" ]; then
  cat >other_pixels.py <<'END'
import struct, sys, zlib
path = sys.argv[1]
size = len(open(path, "rb").read())
def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
rows = b"".join(b"\0" + bytes([200, 10, y]) * 32 for y in range(32))
head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0))
tail = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
pad = size - len(head) - len(tail) - 12
assert pad >= 2
open(path, "wb").write(head + chunk(b"tEXt", b"a\0" + b"x" * (pad - 2)) + tail)
END
  "$python" other_pixels.py "$first"
  expect 1 'is not the one that the open task was begun with' "${photos[@]}"
  grep -q 'begun with other images.*--restart begins anew' output || fail 'what to do about other images is not said'
  cmp -s kept $snapshot || fail 'a run with other images changed the snapshot'
  cp saved.png "$first"
else
  echo 'no python3: an image of the same size with other pixels is not tested'
fi
expect 0 '' "${photos[@]}"

# Sound in their headers, and not behind: left out by --skip-corrupt whatever else is given, named without it.
cp -r pictures cut
head -c 1500 saved.png >cut/b/cut.png
expect 0 '' "${learn[@]}" --train cut --test cut --epochs 1 --out cut.safetensors --skip-corrupt --check-headers --json cut.json
same "$(value cut.json skipped_files)" 2 'files left out with --skip-corrupt --check-headers'
expect 0 '' evaluate "${use[@]}" --checkpoint cut.safetensors --test cut --skip-corrupt --check-headers
expect 1 'cut/b/cut.png' "${learn[@]}" --train cut --epochs 1 --out cut2.safetensors --check-headers
grep -q 'once that is mended, the same command goes on from there, and --restart begins anew' output ||
  fail 'what to do about an image that cannot be read is not said'

# ---- no file takes the place of another ----

quick=("${learn[@]}" --instant)
cp -r X/train.bin "$backbone" .
vit=$(basename "$backbone")
ln "$vit" hard.safetensors
ln -s "$vit" soft.safetensors
ln -s m.safetensors link.safetensors
cp m.safetensors mine.safetensors
mkdir sub
ln -s . here
sums() { find . -type f ! -name output ! -name sums.\* -exec md5sum {} + | sort; }
sums >sums.before
apart() { # apart PATTERN ARGUMENT...: refused as wrong usage, and nothing has changed
  expect 2 "$@"
  sums >sums.after
  cmp -s sums.before sums.after || fail "a refused command changed a file: $*"
}
apart '--out and --json are the same file' "${quick[@]}" --train X --out n.safetensors --json n.safetensors
apart '--out and --json are the same file' "${quick[@]}" --train X --out n.safetensors --json sub/../n.safetensors
apart '--out and --json are the same file' "${quick[@]}" --train X --out n.safetensors --json here/here/n.safetensors
apart 'snapshot of --out and --json are the same' "${quick[@]}" --train X --out n --json "$PWD/n.snapshot"
for file in "$vit" hard.safetensors soft.safetensors "here/$vit"; do
  apart '--out and --backbone are the same file' learn --backbone "$vit" --train X --out "$file" --overwrite
  apart '--json and --backbone are the same file' learn --backbone "$vit" --train X --out n --json "$file"
  apart '--json and --backbone are the same file' evaluate --backbone "$vit" --checkpoint m.safetensors --test X --json "$file"
done
apart '--json and --checkpoint are the same' evaluate --backbone "$vit" --checkpoint m.safetensors --test X \
  --json link.safetensors
apart '--out and --train are the same' "${quick[@]}" --train train.bin --out train.bin --overwrite
apart '--json and --test are the same' "${quick[@]}" --train X --test train.bin --out n --json here/train.bin
apart '--json and --test are the same' evaluate --backbone "$vit" --checkpoint m.safetensors --test train.bin --json train.bin
apart '--json and --resume are the same' "${quick[@]}" --train X --resume mine.safetensors --out n --json mine.safetensors
apart 'n.snapshot is the snapshot of --out n' "${quick[@]}" --train X --resume n.snapshot --out n
apart 'exists and is no JSON file' "${quick[@]}" --train X --out n --json X/batches.meta.txt
apart 'exists and is no JSON file' evaluate --backbone "$vit" --checkpoint m.safetensors --test X --json "$first"
apart 'exists and is no checkpoint' "${quick[@]}" --train pictures --out "$first" --overwrite
apart 'm.safetensors exists; --resume m.safetensors learns on.*--overwrite' "${quick[@]}" --train X --out m.safetensors
apart 'mine.safetensors exists' "${quick[@]}" --train X --resume m.safetensors --out mine.safetensors
apart 'link.safetensors exists' "${quick[@]}" --train X --out link.safetensors
apart '--out and --data are the same' export --data pictures --out here/pictures
apart '.png exists and is not replaced' export --data X/train.bin --out pictures --count 3

# What is meant is done.
expect 0 '' "${quick[@]}" --train Y --resume mine.safetensors --out here/mine.safetensors --json report.json
expect 0 '' "${quick[@]}" --train X --out mine.safetensors --overwrite --json report.json
cmp -s m.safetensors mine.safetensors && fail '--overwrite replaced nothing'
touch empty.json
expect 0 '' "${quick[@]}" --train X --out link.safetensors --overwrite --json empty.json
[ -L link.safetensors ] || fail 'a link at --out was replaced instead of what it leads to'
cmp -s m.safetensors link.safetensors || fail 'a link at --out was not followed'
ln -s report.json link.json
chmod 640 report.json
expect 0 '' evaluate --backbone "$vit" --checkpoint mine.safetensors --test X --json link.json
[ -L link.json ] || fail 'a link at --json was replaced instead of what it leads to'
same "$(stat -c %a report.json)" 640 'permissions of a report that was replaced'
expect 0 '' "${quick[@]}" --train X --out n.safetensors --json /dev/null

# ---- what cannot be written is known before anything is learnt ----

cannot() { # cannot PATTERN ARGUMENT...
  local before
  before=$SECONDS
  expect 1 "$@" --epochs 1000000
  [ $((SECONDS - before)) -lt 60 ] || fail "found out too late: $*"
  ! grep -q 'holds the run so far' output || fail "learning had begun: $*"
}
long_name=$(printf 'n%.0s' $(seq 250))
cannot '/dev/full: it is a device' "${learn[@]}" --train X --out /dev/full
cannot '/dev/null: it is a device' "${learn[@]}" --train X --out /dev/null
cannot 'cannot write /dev/full: No space left' "${learn[@]}" --train X --out o --json /dev/full
cannot 'none/o: the folder none/: No such file' "${learn[@]}" --train X --out none/o
cannot 'none/o: the folder none/: No such file' "${learn[@]}" --train X --out o --json none/o
cannot 'cannot write sub: it is a folder' "${learn[@]}" --train X --out sub
cannot 'cannot write sub: it is a folder' "${learn[@]}" --train X --out o --json sub
cannot 'cannot write new/: it is the name of a folder' "${learn[@]}" --train X --out new/
cannot 'm.safetensors/o: Not a directory' "${learn[@]}" --train X --out m.safetensors/o
cannot 'File name too long' "${learn[@]}" --train X --out "$long_name" # 250 bytes, but not with .snapshot
cannot 'File name too long' "${learn[@]}" --train X --out o --json "$long_name$long_name"
mkfifo fifo
cannot 'fifo: it is a device, pipe' "${learn[@]}" --train X --out fifo
ln -s loop loop
cannot 'loop: Too many levels' "${learn[@]}" --train X --out loop
expect 1 'cannot write /dev/full' evaluate --backbone "$vit" --checkpoint m.safetensors --test X --json /dev/full
expect 1 'none/: No such file' evaluate --backbone "$vit" --checkpoint m.safetensors --test X --json none/e.json
if [ "$(id -u)" -ne 0 ]; then
  chmod a-w sub
  cannot 'sub/: Permission denied' "${learn[@]}" --train X --out sub/o
  chmod u+w sub
  cp m.safetensors protected.safetensors
  chmod a-w protected.safetensors
  cannot 'protected.safetensors: Permission denied' "${learn[@]}" --train X --out protected.safetensors --overwrite
fi
# Names as long as names may be are no obstacle: temporary files have short ones.
expect 0 '' "${quick[@]}" --train X --out "${long_name:0:246}" --json "$(printf 'j%.0s' $(seq 255))"
[ -z "$(find . -name '*.tmp*')" ] || fail "temporary files are left: $(find . -name '*.tmp*')"

if [ "$failures" -gt 0 ]; then
  printf '%d checks of the command and its files failed\n' "$failures" >&2
  exit 1
fi
echo 'the command loses no file and mistakes no run'
