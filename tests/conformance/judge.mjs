// Is a leg as good as its baseline?
//
// usage: node judge.mjs gateway|direct LEG OUT MILLISECONDS      prints one line for the leg, and one for each deviation
//        node judge.mjs total OUT                                prints `N passed, N failed`; exit code 1 if any failed
// Reads OUT/LEG.txt for lines `✓ scenario: N passed, N failed`. Worse means: a pass lost, a failure gained, or no report.
// A scenario that the baseline does not know, and an expected failure that passes, count as failed too.

import fs from 'node:fs';
import path from 'node:path';

const BASELINE = path.join(import.meta.dirname, 'baseline.json');
const EXPECTED = path.join(import.meta.dirname, 'expected-failures.txt');

// {scenario: {passed, failed}}; a step that only a gateway can pass and that was not run has `only: 'gateway'`.
function readLeg(text) {
  const seen = {};
  const plain = text.replace(/\x1b\[[0-9;]*m/g, '');
  // A step of ours says why it failed on the line below it, indented.
  for (const [, scenario, passed, failed, why] of plain.matchAll(/^[✓✗] (\S+): (\d+) passed, (\d+) failed$(?:\n  (\S.*)$)?/gm)) {
    seen[scenario] = { passed: Number(passed), failed: Number(failed), ...(why && Number(failed) ? { why } : {}) };
  }
  for (const [, scenario] of plain.matchAll(/^- (\S+): needs a gateway$/gm)) {
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
  if (!counts) return 'no report';
  return `${counts.passed} passed, ${counts.failed} failed${counts.why ? ` (${counts.why})` : ''}`;
}

function compare(mode, baseline, expected, seen) {
  const deviations = [];
  let passed = 0;
  let asExpected = 0;
  for (const [scenario, want] of Object.entries(baseline)) {
    if (want.only === 'gateway' && mode === 'direct') continue;
    const have = seen[scenario];
    const good = have && have.only === undefined && have.passed >= want.passed && have.failed <= want.failed;
    if (good && expected.has(scenario)) deviations.push(`${scenario}: passes, and is listed as an expected failure: take it off the list`);
    else if (expected.has(scenario) && have) asExpected += 1;
    else if (good) passed += 1;
    else deviations.push(`${scenario}: ${describe(have)}; the baseline has ${describe(want)}`);
  }
  for (const scenario of Object.keys(seen)) if (!baseline[scenario]) deviations.push(`${scenario}: not in the baseline`);
  for (const scenario of expected) if (!baseline[scenario]) deviations.push(`${scenario}: listed as an expected failure, and there is no such scenario`);
  return { passed: passed + asExpected, asExpected, deviations };
}

function judge(mode, leg, out, milliseconds) {
  const text = fs.readFileSync(path.join(out, `${leg}.txt`), 'utf8');
  const seen = readLeg(text);
  const baseline = readBaseline();
  if (process.env.WRITE_BASELINE === '1' && mode === 'direct') {
    writeBaseline({ ...baseline, [leg]: seen });
    console.log(`${leg}: ${Object.keys(seen).length} scenarios written to the baseline`);
    return;
  }
  const expected = mode === 'gateway' ? readExpected(leg) : new Set();
  const { passed, asExpected, deviations } = compare(mode, baseline[leg] ?? {}, expected, seen);
  const note = asExpected ? ` (${asExpected} of them as an expected failure)` : '';
  console.log(`${leg}: ${passed} as the baseline${note}, ${deviations.length} not, ${(milliseconds / 1000).toFixed(1)} s`);
  for (const line of deviations) console.log(`  FAILED ${leg}/${line}`);
  if (deviations.length) {
    const last = [...text.matchAll(/^=== Running scenario: (\S+) ===$/gm)].at(-1)?.[1];
    if (last && !Object.keys(seen).length) console.log(`  the suite did not finish; it was at ${last}`);
    console.log(`  its output is in ${path.join(out, `${leg}.txt`)}`);
  }
  fs.appendFileSync(path.join(out, 'tally'), `${passed} ${deviations.length}\n`);
}

function total(out) {
  const tally = path.join(out, 'tally');
  const rows = fs.existsSync(tally) ? fs.readFileSync(tally, 'utf8').trim().split('\n').map(row => row.split(' ').map(Number)) : [];
  const [passed, failed] = rows.reduce(([a, b], [c, d]) => [a + c, b + d], [0, 0]);
  console.log(`${passed} passed, ${failed} failed`);
  process.exitCode = failed ? 1 : 0;
}

const [mode, ...rest] = process.argv.slice(2);
if (mode === 'total') total(...rest);
else judge(mode, ...rest);
