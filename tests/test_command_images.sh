#!/usr/bin/env bash
# Image files and folders of them as the command duallora takes them: which part of a folder is read, what is passed over
# and said to be, names that would break lines, links to nothing, folders to predict, and how idle threads wait.
# command_images.py compares the pixels.
# usage: test_command_images.sh PATH_TO_DUALLORA BACKBONE.safetensors PYTHON
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
export LC_ALL=C

duallora=$1
backbone=$2
python=$3
here=$(cd "$(dirname "$0")" && pwd)
. "$(dirname "$0")/command_support.sh"

# run CODE ARGUMENT...: both streams go to output, standard output alone to lines
run() {
  local code=$1 got=0
  shift
  { "$duallora" "$@" 2>&1 >&3 | cat >complaints; } 3>lines </dev/null || got=${PIPESTATUS[0]}
  cat complaints lines >output
  [ "$got" = "$code" ] || fail "exit code $got instead of $code: duallora $*"
}

# says TEXT: a line of the last output holds it
says() {
  grep -qF -e "$1" output || fail "no line holds '$1'"
}

says_not() {
  ! grep -qF -e "$1" output || fail "a line holds '$1'"
}

learn=(learn --backbone "$backbone" --instant --threads 2 --quiet --overwrite)
predict=(predict --backbone "$backbone" --threads 2)

mkdir pixels
"$python" -B "$here/command_images.py" "$duallora" pixels || fail 'pictures are not what their files say'
"$python" -B "$here/command_images.py" --make made

# classes FOLDER: a data set of two classes
classes() {
  local kind
  for kind in red blue; do
    mkdir -p "$1/$kind"
    cp made/$kind?.png "$1/$kind"
  done
}

# ---- a folder of a training and a test folder ----

classes photos/train
classes photos/test
classes photos/spare
run 0 "${learn[@]}" --train photos --test photos --out c.safetensors --json c.json
tr -d '[:space:]' <c.json | grep -q '"classes":\["blue","red"\]' || fail 'train and test were learnt as classes'
says 'photos: the training images are read from photos/train; not read: spare, test'
says 'photos: the test images are read from photos/test; not read: spare, train'
run 0 evaluate --backbone "$backbone" --checkpoint c.safetensors --test photos/
says 'the test images are read from photos/test'
run 0 export --data photos --part train --out exported
same "$(find exported -name '*.png' | wc -l)" 8 'pictures of the training part'

mkdir other
mv photos/train other/Train
mv photos/test other/VAL
run 0 "${learn[@]}" --train other --test other --out o.safetensors --json o.json
tr -d '[:space:]' <o.json | grep -q '"classes":\["blue","red"\]' || fail 'Train and VAL were learnt as classes'
says 'the test images are read from other/VAL'

# Two classes of these names are classes: their images lie in the folders themselves.
mkdir -p kinds/train kinds/test
cp made/red?.png kinds/train
cp made/blue?.png kinds/test
run 0 "${learn[@]}" --train kinds --test kinds --out k.safetensors --json k.json
tr -d '[:space:]' <k.json | grep -q '"classes":\["test","train"\]' || fail 'the classes test and train were not learnt'
says_not 'images are read from'

# ---- what is passed over is counted, by kind and always ----

classes mixed
touch mixed/red/{a.GIF,b.gif,notes.txt,README,archive.with-a-very-long-end} mixed/blue/c.gif mixed/.hidden mixed/list.csv
cp made/plain.png mixed/stray.png
run 0 "${learn[@]}" --train mixed --test mixed --out m.safetensors
says 'mixed: 8 files are passed over: 3 .gif, 2 without an extension, 1 .csv, 1 outside the class folders, 1 .txt'
same "$(grep -c 'passed over' output)" 2 'lines of what was passed over, for training and test images'
mkdir -p none/red none/blue
touch none/red/a.heic none/red/b.heic
run 1 "${learn[@]}" --train none --out n.safetensors
says 'none/blue holds no file that ends in .jpg'
rmdir none/blue
run 1 "${learn[@]}" --train none --out n.safetensors
says '(but 2 .heic)'
run 0 "${learn[@]}" --train kinds --out n.safetensors
says_not 'passed over'

webp=$("$duallora" predict --help | grep -c WebP) || true
cp made/plain.webp mixed/red/picture.webp
run 0 "${learn[@]}" --train mixed --out m.safetensors
if [ "$webp" -gt 0 ]; then
  says 'mixed: 8 files'
else
  says 'mixed: 9 files'
  says '1 .webp'
fi

# ---- links to nothing, and files that are cut ----

classes linked
ln -s nowhere linked/red/notes.txt
ln -s nowhere linked/red/link
ln -s nowhere linked/file.csv
run 0 "${learn[@]}" --train linked --out l.safetensors
says 'linked: 3 files are passed over: 3 linked to nothing'
ln -s nowhere linked/red/gone.jpg
run 1 "${learn[@]}" --train linked --out l.safetensors
says 'cannot open linked/red/gone.jpg: No such file'
cp made/cut.jpg linked/blue/cut.jpg
run 0 "${learn[@]}" --train linked --out l.safetensors --skip-corrupt --json l.json
grep -q '"skipped_files":[[:space:]]*2' l.json || fail 'a link to nothing and a cut image were not counted as skipped'
rm linked/red/gone.jpg
run 1 "${learn[@]}" --train linked --out l.safetensors
says 'linked/blue/cut.jpg: truncated JPEG file'
mkfifo linked/blue/pipe.png
rm linked/blue/cut.jpg
run 0 "${learn[@]}" --train linked --out l.safetensors
says '1 not regular'

# ---- folders to predict ----

mkdir -p album/b/c
cp made/red1.png album/z.png
cp made/red2.png album/b/c/y.png
cp made/blue1.png album/b/x.png
touch album/b/notes.txt album/.hidden
run 0 "${predict[@]}" --checkpoint c.safetensors album made/red3.png album/b/
same "$(cut -f 1 lines | tr '\n' ' ')" \
  'album/b/c/y.png album/b/x.png album/z.png made/red3.png album/b/c/y.png album/b/x.png ' 'files predicted'
same "$(cut -f 2 lines | tr '\n' ' ')" 'red blue red red red blue ' 'classes predicted'
says 'album: 1 file is passed over: 1 .txt'
ln -s nowhere album/lost.jpg
run 1 "${predict[@]}" --checkpoint c.safetensors album
says 'cannot open album/lost.jpg'
same "$(wc -l <lines)" 3 'files predicted beside a link to nothing'
mkdir empty
run 1 "${predict[@]}" --checkpoint c.safetensors empty
says 'the folder empty holds no file that ends in .jpg'

# What is held upright and what its camera calls turned are one picture.
run 0 "${predict[@]}" --checkpoint c.safetensors --top 2 made/upright.png
sed 's/upright//' lines >upright
run 0 "${predict[@]}" --checkpoint c.safetensors --top 2 made/lying.png
sed 's/lying//' lines >lying
cmp -s upright lying || fail 'the orientation of a picture changes what is seen in it'

# ---- names ----

classes odd
mv odd/red $'odd/line\nbreak\tand\\slash'
mv odd/blue $'odd/caf\xc3\xa9 \x1b[31m\xc2\x85'
run 0 "${learn[@]}" --train odd --test odd --out odd.safetensors --json odd.json
grep -qF '"line\nbreak\tand\\slash"' odd.json || fail 'a class name is not escaped in JSON'
bad=$'made/\xff\x01\nred.png'
cp made/red1.png "$bad"
run 0 "${predict[@]}" --checkpoint odd.safetensors --top 2 "$bad" made/blue1.png
same "$(wc -l <lines)" 6 'lines of two predictions with two classes each'
same "$(cut -f 1,2 lines | sed -n 1p)" $'made/\\xff\\x01\\nred.png\tline\\nbreak\\tand\\\\slash' 'names in text'
same "$(cut -f 2 lines | sed -n 4p)" $'caf\xc3\xa9 \\x1b[31m\\xc2\\x85' 'a name with control characters in text'
run 0 "${predict[@]}" --checkpoint odd.safetensors --json "$bad"
"$python" -B -c '
import json, sys
entry = json.load(sys.stdin)[0]
sys.exit(entry["file"] != "made/\ufffd\x01\nred.png" or entry["class"] != "line\nbreak\tand\\slash")
' <lines || fail 'names in JSON are not what they are'
run 1 "${predict[@]}" --checkpoint odd.safetensors $'no\nsuch.png'
says 'cannot open no\nsuch.png'
run 2 $'lear\nn'
says "no command 'lear\\nn'"
run 1 "${learn[@]}" --train $'no\tsuch' --out x.safetensors
says 'cannot open no\tsuch'
classes invalid
mv invalid/red invalid/$'\xfe'
run 1 "${learn[@]}" --train invalid --out x.safetensors
says 'invalid/\xfe is not valid UTF-8'

# ---- how idle threads wait ----

# spins VARIABLE...: how often a thread looks before it sleeps, as the program that does the work was told
spins() {
  env -u OMP_WAIT_POLICY -u GOMP_SPINCOUNT OMP_DISPLAY_ENV=verbose "$@" "$duallora" inspect --summary "$backbone" 2>&1 |
    sed -n "s/.*GOMP_SPINCOUNT = '\(.*\)'.*/\1/p" | tail -n 1
}
if [ -z "$(spins env)" ] || [ ! -e /proc/self/exe ]; then
  echo 'no GCC OpenMP here, or no /proc: how idle threads wait is not tested'
else
  same "$(spins env)" 0 'spins of idle threads'
  same "$(spins env GOMP_SPINCOUNT=77)" 77 'spins that were asked for'
  [ "$(spins env OMP_WAIT_POLICY=active)" -gt 1000000 ] || fail 'a wait policy that was asked for is not kept'
fi
linker=$(find /lib64 /lib -maxdepth 1 -name 'ld-linux*.so.*' 2>/dev/null | head -n 1)
if [ -n "$linker" ]; then
  env -u OMP_WAIT_POLICY "$linker" "$duallora" inspect --summary "$backbone" >output 2>&1 ||
    fail 'the program does not run as an argument of the dynamic linker'
  says 'A backbone with'
fi

if [ "$failures" -gt 0 ]; then
  printf '%d checks of images failed\n' "$failures" >&2
  exit 1
fi
echo 'images are what their files say'
