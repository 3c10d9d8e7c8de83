<?php

declare(strict_types=1);

// Everything below /typo3: login, the frame with its modules, AJAX endpoints, the Install Tool.

function backend(string $path, string $line): void
{
    $attempt = ($_POST['login_status'] ?? $_GET['login_status'] ?? '') === 'login' && $_SERVER['REQUEST_METHOD'] !== 'GET';
    $right = ($_POST['userident'] ?? $_POST['p_field'] ?? '') === 'correct horse';
    $known = preg_match('/\b[0-9a-f]{32}\.[0-9a-f]{64}\b|\beyJ/', $_COOKIE['be_typo_user'] ?? '') === 1;
    match (true) {
        in_array($path, ['/typo3/', '/typo3/login', '/typo3/index.php'], true) => login($line, $attempt, $right),
        $path === '/typo3/ajax/login' => ajaxLogin($line, $attempt && $right),
        $path === '/typo3/ajax/login/timedout' => backendAnswer(200, '{"login":{"timed_out":' . ($known ? 'false' : 'true')
            . ',"will_time_out":false,"locked":false}}', $line, null, $known ? [] : [deleted($line)], 'application/json; charset=utf-8'),
        $path === '/typo3/@http-reporting' => answer(201, '', [], 'application/json; charset=utf-8'),
        $path === '/typo3/install.php' => installTool(),
        !$known && $path !== '/typo3/main' && $path !== '/typo3/module/web/layout' => unauthenticated($line),
        $path === '/typo3/main' => mainFrame($line),
        $path === '/typo3/module/web/layout' => modulePage($line),
        $path === '/typo3/logout' => answer(303, '', ['Location: ' . base() . '/typo3/login', deleted($line)]),
        $path === '/typo3/ajax/page/tree/fetchData' => backendAnswer(200, '[{"identifier":"0","name":"Home"}]', $line, null, [], 'application/json; charset=utf-8'),
        default => unauthenticated($line),
    };
}

/** Scheme and authority as this server sees them: wrong unless the proxy says https. */
function base(): string
{
    $https = ($_SERVER['HTTPS'] ?? '') === 'on' || ($_SERVER['REDIRECT_HTTPS'] ?? '') === 'on';
    return ($https ? 'https://' : 'http://') . $_SERVER['HTTP_HOST'];
}

function secure(): string
{
    return str_starts_with(base(), 'https') ? ' secure;' : '';
}

/** The policy that the backend of 12, 13 and 14 sends; never with frame-ancestors. */
function policy(?string $nonce): string
{
    $script = "'self' " . ($nonce === null ? '' : "'nonce-$nonce' ") . "'report-sample'";
    return "Content-Security-Policy: default-src 'self'; script-src $script; style-src 'self' 'unsafe-inline' 'report-sample'; "
        . "style-src-attr 'unsafe-inline' 'report-sample'; img-src 'self' data: *.ytimg.com *.vimeocdn.com; "
        . "frame-src 'self' *.youtube-nocookie.com *.youtube.com *.vimeo.com; base-uri 'none'; object-src 'none'; "
        . 'report-uri ' . base() . '/typo3/@http-reporting?csp=report&requestTime=1795354788369416&requestHash=0160722bd826d08773e9fc225e01a2012da60d11';
}

/** 12 and later delete with Domain, which is another cookie; 11 without. */
function deleted(string $line): string
{
    $domain = (float)$line >= 12.0 ? ' domain=' . preg_replace('/:\d+$/', '', $_SERVER['HTTP_HOST']) . ';' : '';
    return 'Set-Cookie: be_typo_user=deleted; expires=Sat, 22 Nov 2025 13:39:47 GMT; Max-Age=0; path=/;' . $domain . secure() . ' httponly; samesite=lax';
}

function nonceCookie(): string
{
    $prefix = secure() === '' ? '' : '__Secure-';
    return "Set-Cookie: {$prefix}typo3nonce_" . bin2hex(random_bytes(8)) . '=eyJhbGciOiJIUzI1NiJ9.e30.' . bin2hex(random_bytes(16))
        . '; path=/;' . secure() . ' httponly; samesite=strict';
}

/** The sent nonces are consumed by an attempt. */
function consumedNonces(): array
{
    $sent = array_filter(array_keys($_COOKIE), fn($name) => str_contains((string)$name, 'typo3nonce_'));
    return array_map(
        fn($name) => "Set-Cookie: $name=deleted; expires=Sat, 22 Nov 2025 13:39:48 GMT; Max-Age=0; path=/;" . secure() . ' httponly; samesite=strict',
        array_values($sent)
    );
}

function session(string $line): string
{
    $value = (float)$line >= 12.0
        ? 'eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.' . rtrim(base64_encode('{"identifier":"' . bin2hex(random_bytes(16)) . '"}'), '=') . '.' . bin2hex(random_bytes(32))
        : bin2hex(random_bytes(16)) . '.' . bin2hex(random_bytes(32));
    return "Set-Cookie: be_typo_user=$value; path=/;" . secure() . ' httponly; samesite=strict';
}

/** An answer with the fields that the backend of this line adds. */
function backendAnswer(int $status, string $body, string $line, ?string $nonce, array $fields, string $type = 'text/html; charset=utf-8'): void
{
    $own = ['X-Frame-Options: SAMEORIGIN'];
    if ((float)$line >= 12.0) {
        // .htaccess says nosniff as well: Apache's `Header set` leaves one line.
        array_push($own, 'X-Content-Type-Options: nosniff', 'Referrer-Policy: strict-origin-when-cross-origin', policy($nonce));
    }
    $fresh = ['Expires: 0', 'Last-Modified: ' . gmdate('D, d M Y H:i:s') . ' GMT', 'Cache-Control: no-cache, no-store', 'Pragma: no-cache'];
    answer($status, $body, [...$own, ...$fields, ...$fresh], $type);
}

function login(string $line, bool $attempt, bool $right): void
{
    $modern = (float)$line >= 12.0;
    if ($attempt && $right) {
        $to = $modern ? '/typo3/main?token=' . bin2hex(random_bytes(20)) : 'index.php?commandLI=setCookie';
        backendAnswer(303, '', $line, null, ["Location: $to", session($line), ...consumedNonces()]);
        return;
    }
    $nonce = base64_encode(random_bytes(24));
    $cookies = $modern ? [deleted($line), nonceCookie(), ...($attempt ? consumedNonces() : [])] : [deleted($line)];
    $message = $attempt ? '<div class="typo3-login-error">Your login attempt did not succeed</div>' : '';
    backendAnswer(200, html('TYPO3 CMS Login', "$message<form method=\"post\" action=\"/typo3/login?loginProvider=1433416747\">"
        . '<input type="hidden" name="login_status" value="login"><input name="username"><input name="userident" type="password"></form>'
        . "<script nonce=\"$nonce\">document.documentElement.dataset.login = 'ready';</script>"), $line, $nonce, $cookies);
}

function ajaxLogin(string $line, bool $success): void
{
    $cookies = $success ? [session($line)] : [deleted($line)];
    $body = '{"login":{"success":' . ($success ? 'true' : 'false') . '}}';
    backendAnswer(200, $body, $line, null, [...$cookies, ...consumedNonces()], 'application/json; charset=utf-8');
}

/** Made before TYPO3's own header middleware runs: none of the backend's security fields. */
function unauthenticated(string $line): void
{
    answer(302, '', ['Location: /typo3/login', deleted($line), 'Expires: 0', 'Cache-Control: no-cache, no-store', 'Pragma: no-cache'], 'text/html; charset=UTF-8');
}

/** The outer frame: its module runs in an iframe of the same origin. */
function mainFrame(string $line): void
{
    $nonce = base64_encode(random_bytes(24));
    backendAnswer(200, html('TYPO3 Backend', '<iframe name="list_frame" src="/typo3/module/web/layout"></iframe>'
        . "<script nonce=\"$nonce\">document.documentElement.dataset.main = 'ready';</script>"), $line, $nonce, []);
}

function modulePage(string $line): void
{
    $nonce = base64_encode(random_bytes(24));
    backendAnswer(200, html('Page layout', "<script nonce=\"$nonce\">"
        . "parent.document.documentElement.dataset.module = 'loaded'; parent.document.title = 'module loaded';</script>"), $line, $nonce, []);
}

/** A wrong password costs a slow hash and answers 200; there is no limit of its own. */
function installTool(): void
{
    if ($_SERVER['REQUEST_METHOD'] === 'POST') {
        $right = ($_POST['install']['password'] ?? '') === 'joh316';
        $body = $right ? '{"success":true}' : '{"success":false,"status":[{"title":"Login failed","message":"Given password does not match the install tool login password. Calculated hash: $argon2i$v=19"}]}';
        answer(200, $body, ['X-Frame-Options: SAMEORIGIN', ...($right ? ['Set-Cookie: Typo3InstallTool=' . bin2hex(random_bytes(16)) . '; path=/;' . secure() . ' httponly; samesite=strict'] : [])], 'application/json; charset=utf-8');
        return;
    }
    answer(200, html('Installing TYPO3 CMS', '<h1>Install Tool</h1>'), ['X-Frame-Options: SAMEORIGIN', "Content-Security-Policy: default-src 'self'; script-src 'self' 'nonce-x'; base-uri 'none'"]);
}
