// Go beside weft: the same programs as benches/rivals/*.py, the same answers, the same output as benches/child.py.
//
//	weftbench --list
//	weftbench [--seconds S] PROGRAM:N ...
//	weftbench --scale ring|crowd N COMMUNICATIONS      (or memory, latency: see scale.go)
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// run is one timed execution: how much work, the clock, the round trips' times.
type run struct {
	n       int
	samples []int64
	began   time.Time
	cpu     int64
}

func (r *run) start() { r.cpu, r.began = processorTime(), time.Now() }

// processorTime is what all threads of this process have used, in nanoseconds.
func processorTime() int64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return usage.Utime.Nano() + usage.Stime.Nano()
}

type program func(*run) int

type entry struct {
	how      string
	program  program
	messages func(n int) int
	answer   func(n int) int
	share    float64 // of the program's n, for what would take minutes
}

func one(n int) int     { return n }
func two(n int) int     { return 2 * n }
func four(n int) int    { return 4 * n }
func total(n int) int   { return n * (n - 1) / 2 }
func replies(n int) int { return total(n) + n }

func sievePrimes(limit int) int   { primes, _ := countSieve(limit); return primes }
func sieveMessages(limit int) int { _, messages := countSieve(limit); return messages }

// countSieve is benches/programs.py's primes_and_messages.
func countSieve(limit int) (primes, messages int) {
	rank := make([]int, limit+1)
	for number := 2; number <= limit; number++ {
		if rank[number] == 0 {
			primes++
			for multiple := number; multiple <= limit; multiple += number {
				if rank[multiple] == 0 {
					rank[multiple] = primes
				}
			}
		}
		messages += rank[number]
	}
	return primes, messages + primes + 1
}

type result struct {
	Program     string    `json:"program"`
	Ns          []float64 `json:"ns,omitempty"`
	Cpu         []float64 `json:"cpu,omitempty"`
	Percentiles []int64   `json:"percentiles"`
	Error       string    `json:"error,omitempty"`
}

// once is one execution, checked: nanoseconds per message (wall, processor) and the samples.
func once(e entry, n int) (wall, cpu float64, samples []int64, err error) {
	runtime.GC()
	r := &run{n: n}
	r.start()
	answer := e.program(r)
	elapsed, used := time.Since(r.began), processorTime()-r.cpu
	if answer != e.answer(n) {
		return 0, 0, nil, fmt.Errorf("wrong answer %d, expected %d", answer, e.answer(n))
	}
	messages := float64(e.messages(n))
	return float64(elapsed) / messages, float64(used) / messages, r.samples, nil
}

func measure(name string, n int, seconds float64) result {
	e, known := programs[name]
	if !known {
		return result{Program: name, Error: "no such program"}
	}
	found := result{Program: name}
	var samples []int64
	began := time.Now()
	for warm := true; warm || len(found.Ns) == 0 || (time.Since(began).Seconds() < seconds && len(found.Ns) < 20); {
		wall, cpu, some, err := once(e, n)
		if err != nil {
			return result{Program: name, Error: err.Error()}
		}
		if warm {
			warm, began = false, time.Now()
			continue
		}
		found.Ns, found.Cpu = append(found.Ns, wall), append(found.Cpu, cpu)
		samples = append(samples, some...)
	}
	if count := len(samples); count > 0 {
		sort.Slice(samples, func(i, j int) bool { return samples[i] < samples[j] })
		at := func(p float64) int64 { return samples[int(float64(count)*p)] }
		found.Percentiles = []int64{at(0.5), at(0.99), at(0.999)}
	}
	return found
}

func main() {
	list := flag.Bool("list", false, "print the programs")
	seconds := flag.Float64("seconds", 0, "repeat until this long was measured")
	scaled := flag.Bool("scale", false, "one measurement of benches/scale.py")
	flag.Parse()
	out := json.NewEncoder(os.Stdout)
	if *scaled {
		found, err := scale(flag.Args())
		if err != nil {
			fmt.Fprintf(os.Stderr, "weftbench: %v\n", err)
			os.Exit(2)
		}
		out.Encode(found)
		return
	}
	if *list {
		hows := map[string]map[string]any{}
		for name, e := range programs {
			hows[name] = map[string]any{"how": e.how, "share": e.share}
		}
		version := fmt.Sprintf("%s, GOMAXPROCS=%d", runtime.Version(), runtime.GOMAXPROCS(0))
		out.Encode(map[string]any{"version": version, "programs": hows})
		return
	}
	for _, word := range flag.Args() {
		name, number, _ := strings.Cut(word, ":")
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 {
			fmt.Fprintf(os.Stderr, "weftbench: %q is not PROGRAM:N\n", word)
			os.Exit(2)
		}
		out.Encode(measure(name, n, *seconds))
	}
}
