#!/usr/bin/env bash
# The command duallora from outside: what it promises to scripts, and what it says of files that are wrong.
# usage: test_command.sh PATH_TO_DUALLORA BACKBONE.safetensors
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
export LC_ALL=C

duallora=$1
backbone=$2
. "$(dirname "$0")/command_support.sh"

# big-endian 4 bytes
word() {
  local octal
  printf -v octal '\\%03o\\%03o\\%03o\\%03o' $(($1 >> 24 & 255)) $(($1 >> 16 & 255)) $(($1 >> 8 & 255)) $(($1 & 255))
  # shellcheck disable=SC2059 # the escapes are the format
  printf "$octal"
}

jpeg() {
  base64 -d >"$1" <<'END'
/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxOQERXRTc4UG1RV19i
Z2hnPk1xeXBkeFxlZ2P/2wBDARESEhgVGC8aGi9jQjhCY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2Nj
Y2NjY2NjY2P/wAARCAAMABADASIAAhEBAxEB/8QAFQABAQAAAAAAAAAAAAAAAAAABQT/xAAYEAEBAAMAAAAAAAAAAAAAAAADAAVR
Yv/EABUBAQEAAAAAAAAAAAAAAAAAAAME/8QAGBEAAwEBAAAAAAAAAAAAAAAAAAIEIQX/2gAMAwEAAhEDEQA/ACRxvNeON5mBA9SA
geq+6ptB5trYf//Z
END
}

learn=(learn --backbone "$backbone" --epochs 1 --threads 2 --quiet)

# ---- help and usage ----

expect 0 'Exit codes: 0 done, 1 failed' --help
expect 0 '^duallora [0-9]' --version
for command in learn evaluate predict inspect export; do expect 0 "Usage: duallora $command" "$command" --help; done
expect 2 'which command'
expect 2 "no command 'lern'" lern
expect 2 "no option '--epoch'" learn --epoch 3
expect 2 '--backbone FILE is required' learn --train x --out y
expect 2 "'many' is none" learn --tasks many
expect 2 'between 1 and' learn --tasks 0
expect 2 'expected one of early|two-pass' predict --routing sometimes
expect 2 'needs a value' learn --out
expect 2 'takes no value' learn --quiet=1
expect 2 'not expected here' learn surplus
expect 2 'which images' predict --backbone "$backbone" --checkpoint c
expect 2 'one file or folder is expected' inspect

# ---- learning, evaluating, going on ----

mkdir data
cifar data/train.bin 0 4 12 1
cifar data/test.bin 0 4 5 2
printf 'red\ngreen\n"blue" one\nyellow\npink\n' >data/batches.meta.txt

expect 0 'task 1' "${learn[@]}" --train data --test data --tasks 2 --out c.safetensors --json c.json
for figure in 'untouched backbone  ' 'gain of learning  ' 'weight of untouched backbone  '; do
  grep -q "^$figure" output || fail "the table has no '$figure'"
done
for key in last_accuracy average_accuracy forgetting task_accuracy accuracy_given_task untouched_last_accuracy ece seconds; do
  [[ $(value c.json $key) =~ ^-?[0-9] ]] || fail "$key is no number in the report"
done
grep -q '"accuracy_matrix"' c.json || fail 'the report has no accuracy_matrix'
grep -q 'null' c.json || fail 'what was never measured is not null in the report'
for name in red green yellow; do grep -q "\"$name\"" c.json || fail "class $name is not in the report"; done
grep -q '\\"blue\\" one' c.json || fail 'quotes in a class name are not escaped'
awk -v a="$(value c.json last_accuracy)" 'BEGIN { exit !(a > 0.5 && a <= 1) }' ||
  fail "four plain colours are told apart with an accuracy of $(value c.json last_accuracy) only"

expect 0 'last accuracy' evaluate --backbone "$backbone" --checkpoint c.safetensors --test data --json e.json --threads 2
for key in last_accuracy task_accuracy accuracy_given_task untouched_last_accuracy untouched_weight ece num_images; do
  same "$(value e.json $key)" "$(value c.json $key)" "$key after loading"
done
expect 0 '"accuracy_matrix"' evaluate --backbone "$backbone" --checkpoint c.safetensors --test data --json - --quiet

expect 0 '' "${learn[@]}" --train data --test data --tasks 2 --out again.safetensors
cmp -s c.safetensors again.safetensors || fail 'the same seed and threads gave another checkpoint'

mkdir more
cifar more/train.bin 4 1 12 3
cifar more/test.bin 0 5 5 4
cp data/batches.meta.txt more/
expect 0 'task 2' "${learn[@]}" --train more --test more --resume c.safetensors --out d.safetensors --json d.json
same "$(value d.json num_tasks)" 3 'tasks after going on'
grep -q '"pink"' d.json || fail 'the new class is not in the report'
tr -d '[:space:]' <d.json | grep -q '"class_ids":\[[0-9,]*,4\]' || fail 'the new class did not get the id that follows'

expect 0 'task 2' "${learn[@]}" --train data --test data --resume c.safetensors --out r.safetensors --json r.json
same "$(value r.json num_tasks)" 3 'tasks after learning known classes again'
same "$(tr -d '[:space:]' <r.json | grep -o '"class_ids":\[[0-9,]*\]' | tr -cd ,)" ,,, 'classes after learning them again'

expect 0 '' "${learn[@]}" --train data --out untested.safetensors --instant --json u.json
same "$(value u.json last_accuracy)" null 'accuracy without test images'

expect 0 'task 1' "${learn[@]}" --train data --test data --tasks 2 --preset paper --images-per-class 6 --out paper.safetensors
expect 0 'task 1' "${learn[@]}" --train data --test data --tasks 2 --instant --feature-layers final --out final.safetensors

expect 0 '' "${learn[@]}" --train data --test data --out small.safetensors --image-size 16 --images-per-class 6
expect 0 'last accuracy' evaluate --backbone "$backbone" --checkpoint small.safetensors --test data

# ---- what learning gained, and what predictions rely on ----

# gain ARGUMENT...: learns and says what it does; tasks.json has one line for each task
gain() {
  expect 0 '' learn --backbone "$backbone" --epochs 1 --threads 2 --train data --out gain.safetensors --overwrite \
    --json gain.json "$@"
  tr -d '[:space:]' <gain.json | grep -o '{"task":[^}]*}' >tasks.json || fail 'the report has no tasks'
}
# of_task TASK KEY: a member of a task's entry in the report
of_task() {
  grep -o "{\"task\":$1,.*" tasks.json | grep -o "\"$2\":[^,}]*" | cut -d: -f2
}
# says TASK PATTERN: the line after that of the task says what it gained
says() {
  grep -A1 "^task $1 learnt:" output | tail -n 1 | grep -q -e "^  $2" || fail "no '$2' after task $1"
}
nats='(evidence of [0-9]* images* not trained on: [-+][0-9.]* nats each)$'

gain --test data --tasks 2 --held-out 0.25
same "$(wc -l <tasks.json)" 2 'entries of tasks'
for task in 0 1; do
  says $task "learning .* the untouched backbone (.* %, untouched .* %); .*$nats"
  for key in untouched_accuracy untouched_weight evidence_gain evidence_images; do
    [[ $(of_task $task $key) =~ ^-?[0-9] ]] || fail "$key of task $task is no number: '$(of_task $task $key)'"
  done
done
same "$(of_task 1 untouched_accuracy)" "$(value gain.json untouched_last_accuracy)" 'accuracy of the untouched backbone'
same "$(of_task 1 untouched_weight)" "$(value gain.json untouched_weight)" 'weight of the untouched backbone'
# All 24 images before training, and the held-out ones after it; of the first task only these.
[ "$(of_task 1 evidence_images)" -gt 24 ] || fail "$(of_task 1 evidence_images) images of evidence"
[ "$(of_task 0 evidence_images)" -lt 24 ] || fail "$(of_task 0 evidence_images) images of evidence before any adapter"

gain --tasks 2 --untouched-weight 0.3
says 1 "weight of the untouched backbone 0.3, as is set $nats"
same "$(of_task 1 untouched_accuracy)" null 'accuracy of the untouched backbone without test images'
gain --test data --tasks 2 --untouched-weight 1
says 1 '.*; predictions fall back to the untouched backbone, as is set'
says 1 'learning gained nothing over the untouched backbone'
same "$(value gain.json last_accuracy)" "$(value gain.json untouched_last_accuracy)" 'accuracy at weight 1'
gain --tasks 2 --untouched-weight 0
says 1 'predictions rely on the adapted network alone'
gain --test data --no-untouched-baseline
says 0 'predictions rely on the adapted network alone$'
for key in untouched_accuracy evidence_gain; do same "$(of_task 0 $key)" null "$key without the baseline"; done
same "$(of_task 0 untouched_weight) $(of_task 0 evidence_images)" '0 0' 'weight and evidence without the baseline'
! grep -q '^untouched backbone\|^gain of' output || fail 'a gain is told without the baseline'
gain --test data --instant
says 0 'nothing is trained: predictions are those of the untouched backbone$'
! grep -q '^weight of' output || fail 'a weight is told where nothing is trained'
gain --test data --preset paper --images-per-class 6
says 0 'learning .* the untouched backbone (.*); predictions rely on the adapted network alone'

expect 2 '[^_]--untouched-weight is 1.5' learn --backbone "$backbone" --train data --out wrong.safetensors \
  --untouched-weight 1.5
expect 0 'weight of the untouched backbone in predictions; auto: by evidence' predict --help
expect 0 'weight of untouched backbone  *0.30$' evaluate --backbone "$backbone" --checkpoint c.safetensors --test data \
  --untouched-weight 0.3 --quiet

# ---- pictures ----

expect 0 '8 images' export --data data --count 8 --out pictures
same "$(find pictures -name '*.png' | wc -l)" 8 'pictures written'
mapfile -t pictures < <(find pictures -name '*.png' | sort)
expect 0 'task [01]' predict --backbone "$backbone" --checkpoint c.safetensors "${pictures[@]}"
same "$(wc -l <output)" 8 'lines of predict'
expect 0 '"task_probability"' predict --backbone "$backbone" --checkpoint c.safetensors --json --top 2 "${pictures[@]}"
same "$(grep -c '"file"' output)" 8 'entries of predict --json'
grep -q '"unknown":.*\(true\|false\)' output || fail 'the unknown flag is not in the JSON'
expect 1 'neither a JPEG nor a PNG' predict --backbone "$backbone" --checkpoint c.safetensors c.json "${pictures[0]}"
grep -q "^${pictures[0]}" output || fail 'a bad file kept a good one from being predicted'
expect 1 'counted from 0' predict --backbone "$backbone" --checkpoint c.safetensors --task 2 "${pictures[0]}"

mkdir -p photos/{cat,dog}
for i in 1 2 3 4; do
  jpeg photos/cat/$i.jpg
  cp "${pictures[i]}" photos/dog/$i.PNG
done
expect 0 'task 0' "${learn[@]}" --train photos --test photos --out photos.safetensors --json p.json
tr -d '[:space:]' <p.json | grep -q '"classes":\["cat","dog"\]' || fail 'folder names are not the classes'

# ---- wrong data is named before training ----

wrong() {
  local pattern=$1
  shift
  expect 1 "$pattern" "${learn[@]}" --out wrong.safetensors "$@"
  [ ! -e wrong.safetensors ] || fail "a failed run left a checkpoint: $*"
}

wrong 'classes only' --train data --test data --tasks 5
wrong 'cannot open nowhere' --train nowhere --test data
wrong "first of all 'pink'" --train more --test data --resume c.safetensors
wrong 'one class only' --train more --test more
wrong 'none/: No such file' --train data --test data --out none/x.safetensors
expect 0 '' "${learn[@]}" --train photos --test more --out allowed.safetensors --resume c.safetensors \
  --allow-missing-test-classes

cp -r photos broken
head -c 200 photos/cat/1.jpg >broken/cat/2.jpg
wrong 'broken/cat/2.jpg' --train broken --test photos
expect 0 '' "${learn[@]}" --train broken --test photos --out skip.safetensors --skip-corrupt --json s.json
same "$(value s.json skipped_files)" 1 'skipped files'
cp c.json broken/cat/2.jpg
wrong 'broken/cat/2.jpg is neither' --train broken --test photos
mkdir photos/empty
wrong 'class folder photos/empty holds no' --train photos --test photos
rmdir photos/empty
mkdir hollow
wrong 'hollow has no sub-folder' --train hollow --test photos

mkdir cut
head -c 10000 data/train.bin >cut/train.bin
wrong 'no multiple of a CIFAR-10 record' --train cut --test data

# ---- backbones: switches by their names, each path once ----

# once TEXT: it stands in the output of the last command, and once on its line
once() {
  grep -F -e "$1" output | awk -v text="$1" '{ n = 0; while ((at = index($0, text)) > 0) { n++; $0 = substr($0, at + 1) } if (n != 1) exit 1 }' ||
    fail "'$1' is not there once"
}

# headless FILE PREFIX...: the backbone without metadata, once after each prefix
headless() {
  local target=$1 length size entries octal text='' n=0
  shift
  length=$(od -An -tu8 -N8 "$backbone" | tr -d ' ')
  size=$(($(wc -c <"$backbone") - 8 - length))
  entries=$(head -c $((8 + length)) "$backbone" | tail -c +9 |
    sed -e 's/"__metadata__":{[^}]*},//' -e 's/^{//' -e 's/} *$//' -e 's/},"/},\n"/g')
  for prefix; do
    text+=${text:+,}$(awk -v prefix="$prefix" -v more=$((n * size)) '{
      match($0, /"data_offsets":\[[0-9]+,[0-9]+\]/)
      split(substr($0, RSTART + 16, RLENGTH - 17), offsets, ",")
      printf "\"%s%s\"data_offsets\":[%d,%d]%s", prefix, substr($0, 2, RSTART - 2), offsets[1] + more,
        offsets[2] + more, substr($0, RSTART + RLENGTH)
    }' <<<"$entries")
    n=$((n + 1))
  done
  text="{$text}"
  printf -v octal '\\%03o\\%03o\\%03o\\0\\0\\0\\0\\0' $((${#text} & 255)) $((${#text} >> 8 & 255)) $((${#text} >> 16))
  # shellcheck disable=SC2059 # the escapes are the format
  {
    printf "$octal"
    printf %s "$text"
    for prefix; do tail -c "$size" "$backbone"; done
  } >"$target"
}

headless silent.safetensors ''
silent=(learn --backbone silent.safetensors --train data --quiet --out silent.out)
expect 1 'set --num-heads (usually embed_dim / 64 = 3)' "${silent[@]}"
once silent.safetensors
! grep -q 'num_heads in the options\|the option' output || fail 'the sentence names an option of the library'
expect 1 '[^_]--num-heads is 5, which does not divide' "${silent[@]}" --num-heads 5
once silent.safetensors
expect 1 '[^_]--image-size is 33, expected a multiple' "${silent[@]}" --num-heads 3 --image-size 33
expect 1 '[^_]--crop-padding is 99, the image size is' "${learn[@]}" --train data --out wrong.safetensors --crop-padding 99
expect 1 '[^_]--first-block is 77' "${learn[@]}" --train data --out wrong.safetensors --first-block 77
expect 1 '[^_]--rank-residual is 999, expected at most embed_dim' \
  "${learn[@]}" --train data --out wrong.safetensors --rank-residual 999
expect 0 'no backbone: .*set --num-heads' inspect --summary silent.safetensors

headless towers.safetensors student. teacher.
towers=(evaluate --backbone towers.safetensors --checkpoint c.safetensors --test data --num-heads 3)
expect 1 "'student.', 'teacher.'; choose one by --prefix" "${towers[@]}"
once towers.safetensors
expect 1 "prefix 'nobody.'; there are 'student.', 'teacher.'" "${towers[@]}" --prefix nobody.
expect 0 'last accuracy' "${towers[@]}" --prefix teacher.
expect 1 'was learnt on the backbone with fingerprint' "${towers[@]}" --prefix teacher. --image-size 16
once c.safetensors
expect 1 "there is ''" "${learn[@]}" --train data --out wrong.safetensors --prefix teacher.
expect 0 'last accuracy' evaluate --backbone "$backbone" --prefix '' --checkpoint c.safetensors --test data

printf '<!DOCTYPE html><html>Not found</html>' >page.safetensors
expect 1 'is a web page' evaluate --backbone page.safetensors --checkpoint c.safetensors --test data --image-size 32
once page.safetensors
expect 1 'is a web page' evaluate --backbone "$backbone" --checkpoint page.safetensors --test data
once page.safetensors
expect 1 'is a web page' inspect page.safetensors
once page.safetensors
expect 1 'nowhere.safetensors' evaluate --backbone nowhere.safetensors --checkpoint c.safetensors --test data
once nowhere.safetensors
expect 1 'has test.bin, which is not read, and no safetensors file' inspect data
expect 1 'format is ' evaluate --backbone "$backbone" --checkpoint silent.safetensors --test data --image-size 32
once silent.safetensors

# ---- idx files ----

idx() { # idx FOLDER PART CLASSES PER_CLASS
  mkdir -p "$1"
  { word $((0x803)); word $(($3 * $4)); word 8; word 8
    awk -v n=$(($3 * $4)) -v k="$3" 'BEGIN { for (i = 0; i < n; i++) for (p = 0; p < 64; p++)
      printf "%c", (p % (2 + i % k) == 0 ? 200 : 30) + (i * 7 + p * 13) % 40 + 1 }'
  } | gzip >"$1/$2-images-idx3-ubyte.gz"
  { word $((0x801)); word $(($3 * $4))
    awk -v n=$(($3 * $4)) -v k="$3" 'BEGIN { for (i = 0; i < n; i++) printf "%c", i % k }'
  } >"$1/$2-labels-idx1-ubyte"
}
idx my-fashion train 3 12
idx my-fashion t10k 3 4
expect 0 'task 2' "${learn[@]}" --train my-fashion --test my-fashion --tasks 3 --out idx.safetensors --json i.json
grep -q '"trouser"' i.json || fail 'Fashion-MNIST class names are not built in'
expect 0 'last accuracy' evaluate --backbone "$backbone" --checkpoint idx.safetensors \
  --test my-fashion/t10k-images-idx3-ubyte.gz

cp -r my-fashion bad
head -c 60 my-fashion/train-images-idx3-ubyte.gz >bad/train-images-idx3-ubyte.gz
wrong 'bad/train-images-idx3-ubyte.gz is truncated' --train bad --test my-fashion
{ word $((0x803)); word 1000000000; word 1000; word 1000; } >bad/train-images-idx3-ubyte
wrong 'announces 1000000000 images' --train bad --test my-fashion
{ word $((0x803)); word 36; word 16000; word 16000; } >bad/train-images-idx3-ubyte
wrong 'do not fit in the file' --train bad --test my-fashion
cp my-fashion/train-labels-idx1-ubyte bad/train-images-idx3-ubyte
wrong 'no idx file of bytes in 3' --train bad --test my-fashion
rm bad/train-labels-idx1-ubyte
wrong 'no labels file beside it' --train bad --test my-fashion

# ---- a backbone in a folder, as hubs ship them ----

mkdir hub
ln -s "$backbone" hub/model.safetensors
printf '{"num_attention_heads": 8, "layer_norm_eps": 1e-05, "hidden_act": "gelu"}' >hub/config.json
printf '{"image_mean": [0.4, 0.5, 0.6], "image_std": [0.1, 0.2, 0.3], "size": {"height": 16, "width": 16}}' \
  >hub/preprocessor_config.json
expect 0 '^setting   num_heads            3                          metadata num_heads' inspect hub
expect 0 '^setting   activation           gelu                       config.json: hidden_act' inspect --summary hub/
expect 0 '^setting   pool                 class                      tensors' inspect --summary hub
expect 0 'A backbone with timm names: 6 blocks' inspect hub
expect 0 . learn --backbone hub --instant --train data --out hub.safetensors
expect 0 . evaluate --backbone hub/ --checkpoint hub.safetensors --test data
expect 0 . evaluate --backbone hub/model.safetensors --checkpoint hub.safetensors --test data
expect 1 'fingerprint' evaluate --backbone hub --eps 0.001 --checkpoint hub.safetensors --test data
expect 1 'fingerprint' evaluate --backbone hub --pool mean-patches --checkpoint hub.safetensors --test data
expect 1 '^duallora evaluate: hub/model.safetensors: --pool is attention, but' \
  evaluate --backbone hub --pool attention --checkpoint hub.safetensors --test data
expect 1 '--activation asks for silu' \
  evaluate --backbone hub --activation swiglu --checkpoint hub.safetensors --test data
expect 2 "--pool: 'cls' is none of" evaluate --backbone hub --pool cls --checkpoint hub.safetensors --test data
expect 2 '--crop-fraction must be between' \
  evaluate --backbone hub --crop-fraction 2 --checkpoint hub.safetensors --test data
expect 2 '--eps needs a number' evaluate --backbone hub --eps tiny --checkpoint hub.safetensors --test data
expect 2 'hub/model.safetensors' learn --backbone hub --instant --train data --out hub/model.safetensors --overwrite
expect 2 'the same file' learn --backbone hub --instant --train data --out hub
printf '{"hidden_size": 768}' >hub/config.json
expect 1 'hub/model.safetensors: config.json: hidden_size is 768, but its tensors have embed_dim 192' \
  learn --backbone hub --instant --train data --out other.safetensors

# ---- files that do not belong together, inspecting, interrupting ----

expect 1 'x.safetensors' learn --backbone x.safetensors --train data --out y.safetensors
expect 1 'c.json' learn --backbone c.json --train data --out y.safetensors
expect 1 . evaluate --backbone "$backbone" --checkpoint "$backbone" --test data
expect 1 . predict --backbone "$backbone" --checkpoint data/train.bin "${pictures[0]}"
expect 0 'A backbone with timm names: 6 blocks' inspect "$backbone"
expect 0 'Written by libduallora' inspect c.safetensors
expect 1 'c.json' inspect c.json

"$duallora" learn --backbone "$backbone" --train data --epochs 100000 --threads 1 --out late.safetensors >output 2>&1 &
pid=$!
sleep 1.5
kill -INT $pid
got=0
wait $pid || got=$?
same "$got" 130 'exit code after an interrupt'
grep -q 'interrupted' output || fail 'an interrupted run does not say so'
[ ! -e late.safetensors ] || fail 'an interrupted run left a checkpoint'
[ -z "$(find . -name '*.tmp*')" ] || fail "temporary files are left: $(find . -name '*.tmp*')"

# ---- interrupted, and gone on with ----

[ -e late.safetensors.snapshot ] || fail 'an interrupted run left no snapshot'
grep -q 'late.safetensors.snapshot holds the run so far; the same command goes on' output ||
  fail 'an interrupted run does not say how to go on'

long=(--train data --test data --tasks 2 --epochs 10 --batch-size 8)
expect 0 '' "${learn[@]}" "${long[@]}" --out straight.safetensors
[ ! -e straight.safetensors.snapshot ] || fail 'a run that is done left its snapshot'

# interrupted SIGNAL ARGUMENT...: stops a run as soon as it has written a snapshot
interrupted() {
  local signal=$1 tries=0
  shift
  "$duallora" "$@" >output 2>&1 </dev/null &
  pid=$!
  until [ -e "$snapshot" ] || [ $((tries += 1)) -gt 6000 ] || ! kill -0 $pid 2>/dev/null; do sleep 0.02; done
  kill "-$signal" $pid || fail 'the run ended before it could be interrupted'
  got=0
  { wait $pid; } 2>/dev/null || got=$? # bash reports a killed process by itself
}

snapshot=stopped.safetensors.snapshot
stopped=("${learn[@]}" "${long[@]}" --snapshot-steps 3 --out stopped.safetensors)
interrupted INT "${stopped[@]}"
same "$got" 130 'exit code after an interrupt in training'
[ ! -e stopped.safetensors ] || fail 'an interrupted run left a checkpoint'
expect 0 'Written by libduallora' inspect stopped.safetensors.snapshot
expect 1 'another run: --batch-size is not what it was' "${stopped[@]}" --batch-size 7
cp stopped.safetensors.snapshot kept.snapshot
interrupted KILL "${stopped[@]}"
same "$got" 137 'exit code after being killed'
rm -f .duallora-*.tmp # what a killed process was writing
expect 0 'last accuracy' "${stopped[@]}"
cmp -s straight.safetensors stopped.safetensors || fail 'an interrupted run ended with another checkpoint'
[ ! -e stopped.safetensors.snapshot ] || fail 'a run that was gone on with left its snapshot'
cp kept.snapshot stopped.safetensors.snapshot
expect 1 'another run: --train has 24 images, and had 48' "${stopped[@]}" --overwrite --images-per-class 6
[ -e stopped.safetensors.snapshot ] || fail 'a snapshot of another run was removed'
expect 0 '' "${stopped[@]}" --overwrite --restart --epochs 1

# Data that vanishes while it is learnt: the file is named, the old checkpoint and the snapshot stay.
cp -r photos album
cp c.safetensors grown.safetensors
snapshot=grown.safetensors.snapshot
vanishing=("${learn[@]}" --train album --resume grown.safetensors --out grown.safetensors --epochs 80 --snapshot-steps 2)
"$duallora" "${vanishing[@]}" >output 2>&1 </dev/null &
pid=$!
until [ -e $snapshot ] || ! kill -0 $pid 2>/dev/null; do sleep 0.02; done
mv album elsewhere
got=0
wait $pid || got=$?
same "$got" 1 'exit code after the data have vanished'
grep -q 'album/.*: No such file' output || fail 'the image that has vanished is not named'
grep -q 'the same command goes on' output || fail 'a run without its data does not say how to go on'
cmp -s c.safetensors grown.safetensors || fail 'a failed run changed the checkpoint that it was to go on from'
mv elsewhere album
expect 0 '' "${vanishing[@]}"
expect 0 'Written by libduallora' inspect grown.safetensors
[ ! -e $snapshot ] || fail 'a run that was gone on with left its snapshot'

# A full disk: a small file system where one can be mounted, elsewhere files that may not grow.
mkdir full
size=$(($(stat -c %s c.safetensors) + 1000000))
if mount -t tmpfs -o "size=$size" tmpfs full 2>/dev/null; then
  trap 'umount "$scratch/full"; rm -rf "$scratch"' EXIT
  says='No space left on device'
else
  echo 'no file system can be mounted here: a limit on file sizes stands for a full disk'
  says='File too large'
fi
cp c.safetensors full/
(
  [ "$says" = 'No space left on device' ] || ulimit -f 1000
  expect 1 "full/c.safetensors.snapshot: .*$says" "${learn[@]}" --train photos --resume full/c.safetensors \
    --out full/c.safetensors --snapshot-steps 1
  exit $failures
) || failures=$?
cmp -s c.safetensors full/c.safetensors || fail 'a full disk changed the old checkpoint'
same "$(find full -type f | wc -l)" 1 'files after a full disk'

# A folder that cannot be written to is named before anything is learnt.
if [ "$says" = 'No space left on device' ] && mount -o remount,ro full 2>/dev/null; then
  wrong 'Read-only file system' --train photos --out full/new.safetensors
elif [ "$(id -u)" -ne 0 ]; then
  chmod a-w full
  wrong 'Permission denied' --train photos --out full/new.safetensors
  chmod u+w full
else
  echo 'no folder is read-only to root where nothing can be mounted: not tested'
fi

if [ "$failures" -gt 0 ]; then
  printf '%d checks of the command failed\n' "$failures" >&2
  exit 1
fi
echo 'the command keeps its promises'
