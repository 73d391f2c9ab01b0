#!/usr/bin/env bash
# Whether the system works after a deployment: smoke_test.sh PROJECT REGION NAME. Status 1 if not.
#
# Nothing is sent through it. Every revision must be ready; and the clean-up is called as Scheduler
# calls it, which asks its token, the database, the bucket and the configuration.
set -euo pipefail

project=$1 region=$2 name=$3
where=(--project="$project" --region="$region")
faults=0

ready() {
  local kind=$1
  gcloud run "$kind" list "${where[@]}" \
    --filter="metadata.name:$name-" --format='csv[no-heading](metadata.name,status.conditions[0].status)'
}

for kind in services worker-pools; do
  while IFS=, read -r one status; do
    if [ -n "$one" ] && [ "$status" != True ]; then
      echo "$one is not ready" >&2
      faults=1
    fi
  done < <(ready "$kind")
done

job="$name-clean-up"
describe=(gcloud scheduler jobs describe "$job" --project="$project" --location="$region")
before=$("${describe[@]}" --format='value(lastAttemptTime)')
gcloud scheduler jobs run "$job" --project="$project" --location="$region"
for _ in $(seq 60); do
  attempt=$("${describe[@]}" --format='csv[no-heading](lastAttemptTime,status.code)')
  if [ "${attempt%%,*}" != "$before" ]; then break; fi
  sleep 5
done
if [ "${attempt%%,*}" = "$before" ]; then
  echo "$job was not called" >&2
  faults=1
elif [ -n "${attempt##*,}" ]; then
  echo "$job answered with code ${attempt##*,}" >&2
  faults=1
fi

exit "$faults"
