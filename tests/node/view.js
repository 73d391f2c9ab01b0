// What OHIF shows: `node view.js CHROMIUM URL STUDY NAME`. Prints one line of JSON: the text of the
// Study list once the name is in it, that of the viewer with this Study, and how many greys are in its
// picture.
const { chromium } = require('playwright-core');

const [, , executablePath, url, study, name] = process.argv;
const PATIENCE_MS = 120000;
const FEWEST_GREYS = 32;

// Nothing but this machine, and a picture without a graphics card.
const args = [
  '--no-sandbox',
  '--disable-background-networking',
  '--disable-quic',
  '--no-first-run',
  '--use-gl=angle',
  '--use-angle=swiftshader',
  '--enable-unsafe-swiftshader',
];

const greys = () => {
  const shown = document.querySelector('.cornerstone-canvas');
  if (!shown || !shown.width) return 0;
  const copy = document.createElement('canvas');
  [copy.width, copy.height] = [shown.width, shown.height];
  const context = copy.getContext('2d');
  context.drawImage(shown, 0, 0);
  const pixels = context.getImageData(0, 0, copy.width, copy.height).data;
  const found = new Set();
  for (let at = 0; at < pixels.length; at += 4 * 31) found.add(pixels[at]);
  return found.size;
};

const text = async (page) => (await page.locator('body').innerText()).replace(/\s+/g, ' ');

(async () => {
  const browser = await chromium.launch({ executablePath, args, timeout: PATIENCE_MS });
  try {
    const page = await browser.newPage();
    page.setDefaultTimeout(PATIENCE_MS);
    await page.goto(url);
    await page.getByText(name).first().waitFor();
    const list = await text(page);
    await page.goto(`${url}viewer?StudyInstanceUIDs=${study}`);
    await page.waitForFunction(`(${greys})() >= ${FEWEST_GREYS}`);
    const line = { list, viewer: await text(page), greys: await page.evaluate(greys) };
    process.stdout.write(`${JSON.stringify(line)}\n`);
  } finally {
    await browser.close();
  }
})();
