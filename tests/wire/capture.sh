#!/usr/bin/env bash
# Makes the captures of this folder again. See README.md. usage: capture.sh [main] [binary] [acting] [slave]   (default: all)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
shared=${QUORATE_SHARED:-}
for d in "$repo/../shared" "$repo/../../shared"; do [ -n "$shared" ] || ! [ -d "$d" ] || shared=$(cd "$d" && pwd); done
peer=$shared/peers/rocketmq/peer
[ -x "$peer" ] || { echo "capture: no peer kit; set QUORATE_SHARED" >&2; exit 2; }
cache=${QUORATE_CLIENTS_CACHE:-$repo/target/clients}
export ROCKETMQ_PEER_DIR=${ROCKETMQ_PEER_DIR:-$cache/peer} PEER_BASE_PORT=${WIRE_BASE_PORT:-21000}
work=$cache/wire; base=$PEER_BASE_PORT
client_ns=127.0.0.1:$((base + 50)); broker=127.0.0.1:$((base + 100)); control=$((base + 52))
# The broker listens on 127.0.0.2 and registers as 127.0.0.1, where the proxy listens on the same port: every address in every
# frame, offset message ids included, leads through the proxy without rewriting a byte.
conf="namesrvAddr=127.0.0.1:$((base + 51))\nbindAddress=127.0.0.2\nbrokerIP1=127.0.0.1\nbrokerIP2=127.0.0.2"
conf="$conf\nenablePropertyFilter=true\ntransactionTimeOut=2000\ntransactionCheckInterval=2000\nrecallMessageEnable=true\nbrokerFastFailureEnable=false"
conf="$conf\nmappedFileSizeCommitLog=16777216\nmaxMessageSize=1048576"

mkdir -p "$work"
proxy_pid=
stop() { "$peer" down >/dev/null 2>&1 || true; [ -z "$proxy_pid" ] || kill "$proxy_pid" 2>/dev/null || true; proxy_pid=; }
trap stop EXIT

# start MODE [EXTRA_CONF [JOURNAL]]: cluster behind a new proxy; JOURNAL takes what is said from the first moment on
start() {
  stop
  rm -f "$work/broker.jsonl"
  links=("$client_ns=127.0.0.1:$base@client-ns" "127.0.0.1:$((base + 51))=127.0.0.1:$base@broker-ns:$work/broker.jsonl")
  for p in 98 100 118 120; do links+=("127.0.0.1:$((base + p))=127.0.0.2:$((base + p))@broker"); done
  python3 "$here/capture.py" proxy "$control" 127.0.0.1 "${links[@]}" & proxy_pid=$!
  until (exec 3<>"/dev/tcp/127.0.0.1/$control") 2>/dev/null; do kill -0 "$proxy_pid"; sleep 0.1; done
  [ -z "${3:-}" ] || journal "$3"
  PEER_GROUPS=1 PEER_BROKER_CONF="$conf${2:-}" "$peer" up "$1" "$base" >/dev/null
}
journal() { [ -z "${1:-}" ] || rm -f "$1"; python3 "$here/capture.py" journal "$control" "${1:-}"; }
extract() { python3 "$here/capture.py" extract "$@"; }
fresh() { mkdir -p "$here/$1"; find "$here/$1" -name '*.bin' -delete; }

# java_client VERSION: classes and jars of the driver, prints the class path
java_client() {
  local v=$1 out=$work/java-$1 src=$work/java-$1/src
  if ! [ -d "$out/lib" ]; then
    mkdir -p "$out"
    cat > "$out/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>quorate</groupId><artifactId>wire</artifactId><version>1</version>
<dependencies><dependency><groupId>org.apache.rocketmq</groupId><artifactId>rocketmq-tools</artifactId><version>$v</version></dependency></dependencies></project>
POM
    mvn -q -B -f "$out/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$out/lib" >&2
  fi
  rm -rf "$src" "$out/classes"; mkdir -p "$src" "$out/classes"
  cp "$here"/java/*.java "$src/"
  case $v in 4.*)
    rm "$src/WireClient5.java"
    sed -i -e 's/org\.apache\.rocketmq\.remoting\.protocol\.heartbeat/org.apache.rocketmq.common.protocol.heartbeat/' \
      -e 's/org\.apache\.rocketmq\.remoting\.protocol\.subscription/org.apache.rocketmq.common.subscription/' "$src/WireClient.java" ;;
  esac
  javac -proc:none -nowarn -cp "$out/lib/*" -d "$out/classes" "$src"/*.java >&2
  echo "$out/classes:$out/lib/*"
}
java_run() { timeout 300 java -Xmx400m -Duser.home="$work" -Drocketmq.client.logRoot="$work/logs" "$@" WireClient "$client_ns" || echo "capture: some steps failed" >&2; }

want=${*:-main binary acting slave}
"$peer" fetch
cp550=$(java_client 5.5.0)
case " $want " in *" main "*)
  cp498=$(java_client 4.9.8)
  (cd "$here/go" && go build -o "$work/wire-go" .)
  start single-sync
  journal "$work/java-5.5.0.jsonl"; java_run -cp "$cp550"
  journal "$work/java-4.9.8.jsonl"; java_run -cp "$cp498"
  journal "$work/go-2.1.2.jsonl"
  mkfifo "$work/go.in.$$"
  timeout 400 env HOME="$work" "$work/wire-go" "$client_ns" "$broker" < "$work/go.in.$$" > "$work/go.out" 2> "$work/go.err" & go_pid=$!
  exec 7> "$work/go.in.$$"; rm "$work/go.in.$$"
  for _ in $(seq 1500); do grep -q READY "$work/go.out" && break; kill -0 "$go_pid" 2>/dev/null || break; sleep 0.2; done
  # the tool writes what it learns into its working folder
  (cd "$work" && "$peer" mqadmin consumerStatus -n "$client_ns" -g wire_go_push > "$work/go.status" 2>&1) || true
  echo >&7; exec 7>&-
  wait "$go_pid" || echo "capture: some steps of the Go client failed" >&2
  cat "$work/go.out"
  journal
  stop
  sleep 0.5
  fresh java-5.5.0; extract "$work/java-5.5.0.jsonl" "$here/java-5.5.0"
  fresh java-4.9.8; extract "$work/java-4.9.8.jsonl" "$here/java-4.9.8" --skip 26,319
  fresh go-2.1.2; extract "$work/go-2.1.2.jsonl" "$here/go-2.1.2" --client-language GO
  extract "$work/broker.jsonl" "$here/java-5.5.0" --only 103,104,217,322,901,904 --max 4096
esac
case " $want " in *" binary "*)
  PEER_JAVA_OPTS="-Drocketmq.serialize.type=ROCKETMQ" start single-sync
  journal "$work/binary.jsonl"; java_run -Drocketmq.serialize.type=ROCKETMQ -cp "$cp550"; journal
  stop
  find "$here/java-5.5.0" -name '*-binary.bin' -delete
  extract "$work/binary.jsonl" "$here/java-5.5.0" --suffix -binary --max 1024 --headers ROCKETMQ --skip 26,21,201,28,319
  extract "$work/broker.jsonl" "$here/java-5.5.0" --suffix -binary --only 103,104 --headers ROCKETMQ
esac
case " $want " in *" acting "*)
  # liveness is told with 322 to old name servers, with 904 to new ones
  for old in true false; do
    start single-async "\nenableSlaveActingMaster=true\nforceRegister=false\nregisterNameServerPeriod=10000\nenableSingleTopicRegister=true\ncompatibleWithOldNameSrv=$old"
    "$peer" mqadmin updateTopic -n "127.0.0.1:$base" -c DefaultCluster -t WireRegisterTopic -r 1 -w 1 > /dev/null
    sleep 12
    stop
    extract "$work/broker.jsonl" "$here/java-5.5.0" --only 217,322,901,904,103 --suffix -acting
  done
esac
case " $want " in *" slave "*)
  start 2m-2s-async '' "$work/slave.jsonl"
  sleep 65 # a slave asks for topics, groups and offsets once a minute
  journal
  stop
  extract "$work/broker.jsonl" "$here/java-5.5.0" --only 103,322,904 --suffix -group
  extract "$work/slave.jsonl" "$here/java-5.5.0" --only 21,43,45,60,61,201,402,906 --suffix -from-slave
esac
python3 "$here/capture.py" table "$here"
du -sb "$here"/java-* "$here"/go-2.1.2
