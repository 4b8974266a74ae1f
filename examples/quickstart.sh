#!/usr/bin/env bash
# From a fresh Debian 12 to a classifier that has learnt five tasks one after the other: installs what is missing, builds,
# learns Fashion-MNIST, saves, loads, predicts. As root, or as a user with sudo; everything made goes to build-quickstart/.
#
#     examples/quickstart.sh            some minutes on two processors
#     examples/quickstart.sh --short    fewer images, about a minute, for a continuous-integration run
#
# Says at the end whether learning paid on these images, and what predictions rely on. Fails if the method ends clearly
# below the untouched backbone it started from.
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
export LC_ALL=C

images_per_class=500
test_images_per_class=200
margin=1
case "${1:-}" in
  '') ;;
  --short)
    images_per_class=60
    test_images_per_class=40
    margin=3
    ;;
  -h | --help)
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    exit 0
    ;;
  *)
    echo "usage: $0 [--short]" >&2
    exit 2
    ;;
esac

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$top/build-quickstart
run=$build/run
backbone=$top/examples/backbones/vit_192x6_patch4_32.safetensors
data=/usr/share/datasets/fashion-mnist

step() { printf '\n== %s\n' "$1"; }

# ---- what must be there, and the package that brings it ----

have_package() {
  local name
  for name in "$@"; do
    if [ "$(dpkg-query -W -f='${Status}' "$name" 2>/dev/null)" = 'install ok installed' ]; then return 0; fi
  done
  return 1
}

have_command() {
  local name
  for name in "$@"; do
    if command -v "$name" >/dev/null 2>&1; then return 0; fi
  done
  return 1
}

step 'Packages'
missing=()
if ! have_command cc || ! have_package libc6-dev; then missing+=(build-essential); fi
have_command cmake || missing+=(cmake)
have_command ninja make || missing+=(ninja-build)
have_command pkg-config || missing+=(pkg-config)
have_package libopenblas-openmp-dev libopenblas-pthread-dev libopenblas-serial-dev || missing+=(libopenblas-openmp-dev)
for package in libcjson-dev libpng-dev libwebp-dev zlib1g-dev dataset-fashion-mnist; do
  have_package "$package" || missing+=("$package")
done
have_package libjpeg62-turbo-dev libjpeg-turbo8-dev || missing+=(libjpeg62-turbo-dev)
if [ "${#missing[@]}" -gt 0 ]; then
  if ! have_command apt-get; then
    echo "no apt-get here; please install what these Debian packages hold: ${missing[*]}" >&2
    exit 1
  fi
  as_root=()
  if [ "$(id -u)" != 0 ]; then
    if ! have_command sudo; then
      echo "please install as root first: apt-get install ${missing[*]}" >&2
      exit 1
    fi
    as_root=(sudo)
  fi
  echo "installing ${missing[*]}"
  "${as_root[@]}" apt-get update
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
else
  echo 'all there'
fi

step 'Build'
generator=()
if [ ! -e "$build/CMakeCache.txt" ] && have_command ninja; then generator=(-G Ninja); fi
cmake -S "$top" -B "$build" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release -DDUALLORA_BUILD_TESTS=OFF
cmake --build "$build" --target duallora_command --parallel
duallora=$build/examples/duallora
"$duallora" --version

rm -rf "$run"
mkdir -p "$run"

step "Learn Fashion-MNIST: 5 tasks of 2 classes, $images_per_class images a class, none of them kept"
"$duallora" learn --backbone "$backbone" --train "$data" --test "$data" --tasks 5 \
  --images-per-class "$images_per_class" --test-images-per-class "$test_images_per_class" \
  --out "$run/fashion.safetensors" --json "$run/learn.json"

step 'Load the checkpoint again and measure it'
"$duallora" evaluate --backbone "$backbone" --checkpoint "$run/fashion.safetensors" --test "$data" --quiet \
  --test-images-per-class "$test_images_per_class" --json "$run/evaluate.json" >/dev/null

# A number of the top level of a report; shares are in [0, 1] there.
value() {
  awk -v key="\"$2\":" '$1 == key { sub(/,$/, "", $2); print $2; exit }' "$1"
}
percent() {
  value "$@" | awk '{ printf "%.6f", 100 * $1 }'
}
learnt=$(percent "$run/learn.json" last_accuracy)
loaded=$(percent "$run/evaluate.json" last_accuracy)
untouched=$(percent "$run/learn.json" untouched_last_accuracy)
weight=$(value "$run/learn.json" untouched_weight)
printf 'accuracy before saving %.2f %%, after loading %.2f %%\n' "$learnt" "$loaded"
if [ "$learnt" != "$loaded" ]; then
  echo 'the loaded checkpoint does not predict what the saved one did' >&2
  exit 1
fi

step 'Predict single files (folder names are the true classes)'
"$duallora" export --data "$data" --count 8 --out "$run/pictures"
(cd "$run" && "$duallora" predict --backbone "$backbone" --checkpoint fashion.safetensors pictures/*/*.png)

step 'Result'
printf 'after five tasks: %.2f %%; untouched backbone with the same readout: %.2f %%\n' "$learnt" "$untouched"
# A difference below the standard error of an accuracy on that many images tells nothing.
awk -v learnt="$learnt" -v untouched="$untouched" -v weight="$weight" -v images="$(value "$run/learn.json" num_images)" \
  'BEGIN {
    gain = learnt - untouched
    noise = sqrt(learnt * (100 - learnt) / images)
    if (gain > noise) printf "learning paid: %.2f points", gain
    else if (gain >= -noise) printf "learning did not pay on these images: %+.2f points are within the noise of %d images", gain, images
    else printf "learning did harm on these images: %.2f points", gain
    if (weight >= 1) print "; predictions fell back to the untouched backbone"
    else if (weight <= 0) print "; predictions rely on the adapted network alone"
    else printf "; weight of the untouched backbone in predictions: %.1f\n", weight
  }'
printf 'forgetting: %.2f points; %.0f s of learning and measuring\n' "$(percent "$run/learn.json" forgetting)" \
  "$(value "$run/learn.json" seconds)"
if ! awk -v learnt="$learnt" -v untouched="$untouched" -v margin="$margin" \
  'BEGIN { exit !(learnt >= untouched - margin) }'; then
  echo "that is more than $margin points below the untouched backbone" >&2
  exit 1
fi
echo "the checkpoint: $run/fashion.safetensors"
