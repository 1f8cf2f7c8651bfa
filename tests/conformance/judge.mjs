// Are legs as good as their baseline?
//
// usage: node judge.mjs gateway|direct OUT LEG..      prints one line for each leg, and one for each deviation
//        node judge.mjs total OUT                     prints `N passed, N failed, N skipped`; exit code 1 if any failed
// Reads OUT/LEG.txt for lines `✓ scenario: N passed, N failed`, and the milliseconds it took from OUT/LEG.ms. Worse means: a
// pass lost, a failure gained, or no report. The baseline of WHAT@WHERE is that of WHAT.
// A scenario that the baseline does not know, and an expected failure that passes, count as failed too.

import fs from 'node:fs';
import path from 'node:path';

const BASELINE = path.join(import.meta.dirname, 'baseline.json');
const EXPECTED = path.join(import.meta.dirname, 'expected-failures.txt');

// {scenario: {passed, failed}}, counts of one that is reported twice added; a step that was not run, as it needs a gateway or the
// node of its stream, has `only: 'gateway'`.
function readLeg(text) {
  const seen = {};
  const plain = text.replace(/\x1b\[[0-9;]*m/g, '');
  // A step of ours says why it failed on the line below it, indented.
  for (const [, scenario, passed, failed, why] of plain.matchAll(/^[✓✗] (\S+): (\d+) passed, (\d+) failed$(?:\n  (\S.*)$)?/gm)) {
    const before = seen[scenario] ?? { passed: 0, failed: 0 };
    seen[scenario] = { ...before, passed: before.passed + Number(passed), failed: before.failed + Number(failed) };
    if (why && Number(failed)) seen[scenario].why = why;
  }
  for (const [, scenario] of plain.matchAll(/^- (\S+): needs (a gateway|the node of its stream)$/gm)) {
    seen[scenario] = { passed: 1, failed: 0, only: 'gateway' };
  }
  return seen;
}

function readBaseline() {
  return fs.existsSync(BASELINE) ? JSON.parse(fs.readFileSync(BASELINE, 'utf8')) : {};
}

function writeBaseline(baseline) {
  const leg = entries => Object.entries(entries).map(([scenario, counts]) => `    ${JSON.stringify(scenario)}: ${JSON.stringify(counts)}`).join(',\n');
  const legs = Object.entries(baseline).map(([name, entries]) => `  ${JSON.stringify(name)}: {\n${leg(entries)}\n  }`);
  fs.writeFileSync(BASELINE, `{\n${legs.join(',\n')}\n}\n`);
}

// Lines `leg/scenario   reason`.
function readExpected(leg) {
  const lines = fs.readFileSync(EXPECTED, 'utf8').split('\n').filter(line => line && !line.startsWith('#'));
  return new Set(lines.map(line => line.split(/\s/)[0]).filter(name => name.startsWith(`${leg}/`)).map(name => name.slice(leg.length + 1)));
}

function describe(counts) {
  return `${counts.passed} passed, ${counts.failed} failed${counts.why ? ` (${counts.why})` : ''}`;
}

function compare(mode, baseline, expected, seen) {
  const deviations = [];
  const silent = [];
  let passed = 0;
  let asExpected = 0;
  for (const [scenario, want] of Object.entries(baseline)) {
    if (want.only === 'gateway' && mode === 'direct') continue;
    const have = seen[scenario];
    const good = have && have.only === undefined && have.passed >= want.passed && have.failed <= want.failed;
    if (good && expected.has(scenario)) deviations.push(`${scenario}: passes, and is listed as an expected failure: take it off the list`);
    else if (expected.has(scenario) && have) asExpected += 1;
    else if (good) passed += 1;
    else if (!have) silent.push(scenario);
    else deviations.push(`${scenario}: ${describe(have)}; the baseline has ${describe(want)}`);
  }
  const unknown = Object.keys(seen).filter(scenario => !baseline[scenario]);
  for (const scenario of expected) if (!baseline[scenario]) deviations.push(`${scenario}: listed as an expected failure, and there is no such scenario`);
  return { passed: passed + asExpected, asExpected, deviations, silent, unknown };
}

function judge(mode, out, leg) {
  const text = fs.readFileSync(path.join(out, `${leg}.txt`), 'utf8');
  const seconds = (Number(fs.readFileSync(path.join(out, `${leg}.ms`), 'utf8')) / 1000).toFixed(1);
  const seen = readLeg(text);
  const baseline = readBaseline();
  const what = leg.split('@')[0];
  if (process.env.WRITE_BASELINE === '1' && mode === 'direct') {
    writeBaseline({ ...baseline, [what]: seen });
    console.log(`${leg}: ${Object.keys(seen).length} scenarios written to the baseline, ${seconds} s`);
    return;
  }
  const expected = mode === 'gateway' ? readExpected(leg) : new Set();
  const { passed, asExpected, deviations, silent, unknown } = compare(mode, baseline[what] ?? {}, expected, seen);
  const note = asExpected ? ` (${asExpected} of them as an expected failure)` : '';
  const failed = deviations.length + silent.length + unknown.length;
  console.log(`${leg}: ${passed} as the baseline${note}, ${failed} not, ${seconds} s`);
  for (const line of deviations) console.log(`  FAILED ${leg}/${line}`);
  if (silent.length) console.log(`  FAILED ${leg}, no report of: ${silent.join(' ')}`);
  if (unknown.length) console.log(`  FAILED ${leg}, not in the baseline: ${unknown.join(' ')}`);
  if (failed) {
    const last = [...text.matchAll(/^=== Running scenario: (\S+) ===$/gm)].at(-1)?.[1];
    if (last && !Object.keys(seen).length) console.log(`  the suite did not finish; it was at ${last}`);
    console.log(`  its output is in ${path.join(out, `${leg}.txt`)}`);
  }
  fs.appendFileSync(path.join(out, 'tally'), `${passed} ${failed} 0\n`);
}

function total(out) {
  const tally = path.join(out, 'tally');
  const rows = fs.existsSync(tally) ? fs.readFileSync(tally, 'utf8').trim().split('\n').map(row => row.split(' ').map(Number)) : [];
  const [passed, failed, skipped] = rows.reduce((sums, row) => sums.map((sum, column) => sum + row[column]), [0, 0, 0]);
  console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
  process.exitCode = failed ? 1 : 0;
}

const [mode, out, ...legs] = process.argv.slice(2);
if (mode === 'total') total(out);
else for (const leg of legs) judge(mode, out, leg);
